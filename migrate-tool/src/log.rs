//! Which form log lines have: the one asked for, else the file's.

use clap::ValueEnum;
use switchyard_router::logging;
use switchyard_schema::{LogConfig, LogFormat};

/// The form of a log line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Starts logging. Without a valid file it is text, from `info` on.
pub(crate) fn start(form: Option<Form>, configured: Option<&LogConfig>) {
    let default = LogConfig::default();
    let configured = configured.unwrap_or(&default);
    let form = form.map(|form| match form {
        Form::Text => LogFormat::Text,
        Form::Json => LogFormat::Json,
    });
    logging::start(form.unwrap_or(configured.format), &configured.filter);
}
