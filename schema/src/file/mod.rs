//! The configuration file: from text to the model, or to everything that is wrong with it.

use crate::diagnostic::Diagnostic;
use crate::model::Config;

impl Config {
    /// Reads a configuration, reporting every problem at once.
    pub fn parse(text: &str) -> Result<Config, Vec<Diagnostic>> {
        let _ = text;
        Err(Vec::new())
    }
}
