//! Settings that a statement changes by `set_config`, for the session to take note of.

use std::borrow::Cow;

use super::Plan;
use super::bind::unquote;
use super::refusal::{NOT_SUPPORTED, Refusal};
use super::route::Values;
use crate::relations::Changes;

/// A call of `set_config(name, value, is_local)`. What is not known when it has been bound, the session asks the server
/// once the statement has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The setting's name.
    pub name: Argument,
    /// The new value, if the call is certain to take place and its argument is known at binding.
    pub value: Option<Argument>,
    /// Until the end of the transaction only, if that is known at binding.
    pub local: Option<Argument>,
}

/// An argument that is known at binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A string literal, by slot.
    Slot(u32),
    /// `$n`
    Param(u16),
    /// This text.
    Text(String),
    /// `TRUE` or `FALSE`
    Bool(bool),
    /// NULL
    Null,
}

/// Settings by which the router reads statements: they are changed by `SET`, which looks at the value first. And the one
/// that is no setting.
const ONLY_BY_SET: [&str; 6] = [
    "backslash_quote",
    "client_encoding",
    "seed",
    "standard_conforming_strings",
    "switchyard.consistent_read",
    "switchyard.route",
];

/// Why a setting's value cannot be, if it cannot: with it the router would read statements otherwise than the servers.
/// `alone`: there is one shard only.
pub(crate) fn unreadable(name: &str, value: &str, alone: bool) -> Option<Refusal> {
    let value = value.to_ascii_lowercase();
    let is_off = matches!(
        value.as_str(),
        "off" | "false" | "no" | "0" | "of" | "f" | "fa" | "fal" | "fals" | "n"
    );
    if name == "standard_conforming_strings" && is_off {
        return Some(
            Refusal::certain(
                NOT_SUPPORTED,
                "standard_conforming_strings cannot be turned off",
            )
            .hint("Write string constants with escapes as E'…'."),
        );
    }
    let encoding: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    let has_same_bytes = matches!(encoding.as_str(), "utf8" | "unicode" | "sqlascii");
    if name == "client_encoding" && !has_same_bytes && !alone {
        return Some(
            Refusal::certain(
                NOT_SUPPORTED,
                format!("client encoding \"{value}\" is not supported"),
            )
            .detail("The router finds the shard of a text by the bytes that the servers store.")
            .hint("Use UTF8."),
        );
    }
    None
}

/// The types of parameters that have the form of text, also in binary: unknown ones, `text`, `varchar`, `unknown`.
const TEXTS: [u32; 4] = [0, 25, 1043, 705];
const BOOL: u32 = 16;

impl Plan {
    /// This plan with the settings of one execution: their arguments are texts, truth values or NULL. `alone`: there is one shard only,
    /// whose server reads a text in whatever encoding the session has.
    ///
    /// # Errors
    /// A setting that cannot be followed.
    pub fn with_settings_bound(
        &self,
        values: &Values<'_>,
        alone: bool,
    ) -> Result<Plan, Box<Refusal>> {
        let mut plan = self.clone();
        for setting in &mut plan.settings {
            let name = match setting.name.text(values) {
                Some(Argument::Text(name)) => name.to_ascii_lowercase(),
                _ => return Err(Box::new(unfollowed("a setting whose name is not known"))),
            };
            let is_readable = alone && name == "client_encoding";
            if ONLY_BY_SET.contains(&name.as_str()) && !is_readable {
                return Err(Box::new(unfollowed(&name)));
            }
            setting.name = Argument::Text(name);
            setting.value = setting.value.as_ref().and_then(|value| value.text(values));
            setting.local = setting.local.as_ref().and_then(|local| local.truth(values));
        }
        Ok(plan)
    }
}

/// The settings that code may change, to be asked of the server once it has run.
///
/// # Errors
/// It changes a setting that only `SET` may change.
pub(super) fn of_code(changes: &Changes) -> Result<Vec<Setting>, Refusal> {
    if let Some(name) = changes
        .names
        .iter()
        .find(|name| ONLY_BY_SET.contains(&name.as_str()))
    {
        return Err(unfollowed(name));
    }
    let asked = |name: &String| Setting {
        name: Argument::Text(name.clone()),
        value: None,
        local: None,
    };
    Ok(changes.names.iter().map(asked).collect())
}

/// The refusal of what the session could not take note of.
pub(super) fn unfollowed(setting: &str) -> Refusal {
    Refusal::not_supported(format!("set_config of {setting} is not supported here"))
        .detail("The setting decides how the router reads later statements.")
        .hint("Use SET.")
}

impl Argument {
    fn text(&self, values: &Values<'_>) -> Option<Argument> {
        let text = match self {
            Self::Slot(slot) => {
                let literal = values.literals.get(*slot as usize)?;
                let span = literal.span.start as usize..literal.span.end as usize;
                unquote(values.sql.get(span)?)?
            }
            Self::Param(number) => {
                let param = values.params.param(*number)?;
                match param.value {
                    _ if !TEXTS.contains(&param.oid) => return None,
                    Some(text) => Cow::Borrowed(text),
                    None => return Some(Self::Null),
                }
            }
            Self::Text(_) | Self::Null => return Some(self.clone()),
            Self::Bool(_) => return None,
        };
        Some(Self::Text(std::str::from_utf8(&text).ok()?.to_owned()))
    }

    fn truth(&self, values: &Values<'_>) -> Option<Argument> {
        let text = match self {
            Self::Param(number) => {
                let param = values.params.param(*number)?;
                match (param.value, param.oid) {
                    (None, _) => return Some(Self::Bool(false)),
                    (Some([byte]), 0 | BOOL) if param.binary => {
                        return Some(Self::Bool(*byte != 0));
                    }
                    _ if param.binary => return None,
                    (Some(text), _) => String::from_utf8_lossy(text).into_owned(),
                }
            }
            Self::Bool(_) => return Some(self.clone()),
            Self::Null => return Some(Self::Bool(false)),
            Self::Slot(_) | Self::Text(_) => match self.text(values)? {
                Self::Text(text) => text,
                Self::Slot(_) | Self::Param(_) | Self::Bool(_) | Self::Null => return None,
            },
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "on" | "yes" | "y" | "1" => Some(Self::Bool(true)),
            "f" | "false" | "off" | "no" | "n" | "0" => Some(Self::Bool(false)),
            _ => None,
        }
    }
}
