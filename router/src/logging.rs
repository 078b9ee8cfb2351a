//! Log lines, on standard error, as text or as JSON.

use std::io;

use switchyard_schema::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process; `filter` is a level or a list of `target=level`. Does nothing if the process logs
/// already, as when routers run inside of a test.
pub fn start(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // It fails when something else has been installed before: that then decides.
    let _ = match format {
        LogFormat::Text => lines
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// One ERROR for each line of a message that may have many.
pub fn each_line(message: &str) {
    for line in message.lines() {
        tracing::error!("{line}");
    }
}
