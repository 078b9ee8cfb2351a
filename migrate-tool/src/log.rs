//! Log lines on standard error, as text or JSON.

use std::io;

use clap::ValueEnum;
use switchyard_schema::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// The form of a log line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Starts logging: in the form asked for, else in the file's. Without a valid file it is text, from `info` on.
pub(crate) fn start(form: Option<Form>, configured: Option<&LogConfig>) {
    let default = LogConfig::default();
    let configured = configured.unwrap_or(&default);
    let filter = EnvFilter::builder().parse_lossy(&configured.filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(io::stderr);
    let form = form.unwrap_or(match configured.format {
        LogFormat::Text => Form::Text,
        LogFormat::Json => Form::Json,
    });
    match form {
        Form::Text => builder.with_ansi(false).init(),
        Form::Json => builder.json().init(),
    }
}
