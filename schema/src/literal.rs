//! A key value of the file becomes a key once the column's type is known.

use crate::key::{Key, KeyFamily, KeyType};
use crate::model::{Literal, LiteralForm};
use crate::placement::ResolveError;

impl Literal {
    /// The key this literal is in a column of that type. A time stamp without an offset is UTC for timestamptz, and a date
    /// is its midnight.
    pub fn key(&self, key_type: KeyType) -> Result<Key<'static>, ResolveError> {
        self.read(key_type).map(|(key, _)| key)
    }

    /// The same key as a constant of SQL, which means it under any settings.
    pub(crate) fn sql(&self, key_type: KeyType) -> Result<String, ResolveError> {
        let (_, text) = self.read(key_type)?;
        // Backslashes are no escapes in what is not marked E'…': routers refuse standard_conforming_strings = off.
        let quoted = text.replace('\'', "''");
        Ok(format!(
            "'{quoted}'::pg_catalog.{}",
            key_type.internal_name()
        ))
    }

    /// The key, and the text that it was read from.
    fn read(&self, key_type: KeyType) -> Result<(Key<'static>, String), ResolveError> {
        let refused = || ResolveError::NotAValue {
            literal: self.clone(),
            key_type,
        };
        if !self.form.fits(key_type.family()) {
            return Err(refused());
        }
        let read = |text: String| {
            let key = Key::from_text(key_type, text.as_bytes()).ok()?.into_owned();
            Some((key, text))
        };
        let read = read(self.text.clone()).or_else(|| {
            if key_type != KeyType::Timestamptz {
                return None;
            }
            read(format!("{}+00", self.text)).or_else(|| read(format!("{} 00:00+00", self.text)))
        });
        read.ok_or_else(refused)
    }
}

impl LiteralForm {
    fn fits(self, family: KeyFamily) -> bool {
        match self {
            LiteralForm::String => true,
            LiteralForm::Integer => matches!(family, KeyFamily::Integer | KeyFamily::Numeric),
            LiteralForm::Decimal => family == KeyFamily::Numeric,
            LiteralForm::DateTime => matches!(
                family,
                KeyFamily::Date | KeyFamily::Timestamp | KeyFamily::Timestamptz
            ),
            LiteralForm::Boolean => family == KeyFamily::Bool,
        }
    }
}
