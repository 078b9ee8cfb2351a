//! Settings that code changes: the SET, RESET and set_config in the body of a function, procedure or DO block.

use std::collections::BTreeSet;

use crate::sql::{self, Lexer, Token, TokenKind};

/// The settings that running some code may change, for its own transaction or for longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Their names.
    pub names: BTreeSet<String>,
    /// It may change others too: which cannot be seen.
    pub unseen: bool,
}

/// Words after which a statement begins.
const OPENERS: [&str; 7] = ["atomic", "as", "begin", "do", "else", "loop", "then"];

/// Calls of other languages that run text as SQL.
const RUNNERS: [&str; 9] = [
    "execute",
    "execute_plan",
    "prepare",
    "query",
    "spi_exec",
    "spi_exec_prepared",
    "spi_exec_query",
    "spi_query",
    "subtransaction",
];

/// How deep code inside constants is read.
const DEPTH: u32 = 4;

impl Changes {
    /// What code in this language may change.
    pub fn of(code: &str, language: &str) -> Changes {
        let mut changes = Changes::default();
        match language {
            "sql" | "plpgsql" => changes.read(code.as_bytes(), language == "plpgsql", 0),
            _ => {
                let code = code.to_ascii_lowercase();
                let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
                changes.unseen = words.any(|word| RUNNERS.contains(&word));
            }
        }
        changes
    }

    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.unseen
    }

    /// Adds what other code changes. Says whether that is more.
    pub fn add(&mut self, other: &Changes) -> bool {
        let before = (self.names.len(), self.unseen);
        self.names.extend(other.names.iter().cloned());
        self.unseen |= other.unseen;
        before != (self.names.len(), self.unseen)
    }

    fn read(&mut self, code: &[u8], procedural: bool, depth: u32) {
        let mut lexer = Lexer::new(code);
        let mut tokens = Vec::new();
        loop {
            match lexer.next() {
                Ok(Some(token)) => tokens.push(token),
                Ok(None) => break,
                Err(_) => {
                    self.unseen = true;
                    return;
                }
            }
        }
        for (position, token) in tokens.iter().enumerate() {
            let rest = tokens.get(position + 1..).unwrap_or_default();
            if token.is_word(code, "set_config") {
                self.call(code, rest);
            } else if procedural && token.is_word(code, "execute") {
                self.run(code, rest, depth);
            } else if begins(code, tokens.get(..position).unwrap_or_default()) {
                if token.is_word(code, "set") {
                    self.set(code, rest);
                } else if token.is_word(code, "reset") {
                    self.name(code, rest);
                }
            }
        }
    }

    /// `set_config('name', …`
    fn call(&mut self, code: &[u8], rest: &[Token]) {
        match rest {
            [open, name, comma, ..]
                if open.kind == TokenKind::Punct(b'(') && comma.kind == TokenKind::Punct(b',') =>
            {
                match constant(code, name) {
                    Some(name) => drop(self.names.insert(name.trim().to_ascii_lowercase())),
                    None => self.unseen = true,
                }
            }
            _ => self.unseen = true,
        }
    }

    /// `EXECUTE 'text'` or `EXECUTE format('text', …`: how the text begins says what it is.
    fn run(&mut self, code: &[u8], rest: &[Token], depth: u32) {
        let text = match rest {
            [format, open, text, ..]
                if format.is_word(code, "format") && open.kind == TokenKind::Punct(b'(') =>
            {
                constant(code, text)
            }
            [text, ..] => constant(code, text),
            [] => None,
        };
        match text {
            Some(text) if depth < DEPTH => self.read(text.as_bytes(), false, depth + 1),
            _ => self.unseen = true,
        }
    }

    fn set(&mut self, code: &[u8], rest: &[Token]) {
        let is = |position: usize, word: &str| {
            rest.get(position)
                .is_some_and(|token| token.is_word(code, word))
        };
        if is(0, "transaction") || is(0, "constraints") {
            return;
        }
        if is(0, "session") && is(1, "characteristics") {
            let modes = ["isolation", "read_only", "deferrable"];
            self.names
                .extend(modes.map(|mode| format!("default_transaction_{mode}")));
            return;
        }
        let local = is(0, "local") || (is(0, "session") && !is(1, "authorization"));
        self.name(code, rest.get(usize::from(local)..).unwrap_or_default());
    }

    /// The name of a setting, in one of its spellings.
    fn name(&mut self, code: &[u8], rest: &[Token]) {
        let is = |position: usize, word: &str| {
            rest.get(position)
                .is_some_and(|token| token.is_word(code, word))
        };
        let spelled = if is(0, "time") && is(1, "zone") {
            Some("timezone")
        } else if is(0, "session") && is(1, "authorization") {
            Some("session_authorization")
        } else if is(0, "names") {
            Some("client_encoding")
        } else if is(0, "schema") {
            Some("search_path")
        } else if is(0, "xml") && is(1, "option") {
            Some("xmloption")
        } else {
            None
        };
        if let Some(name) = spelled {
            self.names.insert(name.to_owned());
            return;
        }
        let mut name = String::new();
        for pair in rest.chunks(2) {
            let Some(part) = pair.first().and_then(|token| sql::name(token, code)) else {
                self.unseen = true;
                return;
            };
            name.push_str(&part.to_ascii_lowercase());
            match pair.get(1) {
                Some(dot) if dot.text(code) == b"." => name.push('.'),
                _ => break,
            }
        }
        match name.as_str() {
            "" | "all" => self.unseen = true,
            _ => drop(self.names.insert(name)),
        }
    }
}

/// Whether a statement begins after these tokens.
fn begins(code: &[u8], before: &[Token]) -> bool {
    let Some(last) = before.last() else {
        return true;
    };
    last.kind == TokenKind::Punct(b';')
        || last.text(code) == b">>"
        || OPENERS.iter().any(|word| last.is_word(code, word))
}

/// The text of a string constant.
pub fn constant(code: &[u8], token: &Token) -> Option<String> {
    let text = std::str::from_utf8(token.text(code)).ok()?;
    if token.kind == TokenKind::String {
        return Some(text.get(1..text.len().checked_sub(1)?)?.replace("''", "'"));
    }
    if token.kind != TokenKind::OtherString || !text.starts_with('$') {
        return None;
    }
    let tag = text.get(1..)?.find('$')? + 2;
    Some(text.get(tag..text.len().checked_sub(tag)?)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Changes;

    fn changes(code: &str) -> (Vec<String>, bool) {
        let changes = Changes::of(code, "plpgsql");
        (changes.names.into_iter().collect(), changes.unseen)
    }

    #[test]
    fn statements_and_calls_are_found() {
        for (code, names) in [
            ("BEGIN SET work_mem = '1MB'; END", vec!["work_mem"]),
            (
                "begin if x then set local App.user to 'a'; end if; end",
                vec!["app.user"],
            ),
            (
                "BEGIN PERFORM set_config('app.a', x, true); RESET role; END",
                vec!["app.a", "role"],
            ),
            (
                "BEGIN SET SESSION AUTHORIZATION x; SET TIME ZONE 'UTC'; END",
                vec!["session_authorization", "timezone"],
            ),
            (
                "BEGIN EXECUTE format('SET statement_timeout = %s', x); END",
                vec!["statement_timeout"],
            ),
            (
                "BEGIN EXECUTE $q$ SELECT set_config('a.b', 'c', false) $q$; END",
                vec!["a.b"],
            ),
            (
                "BEGIN UPDATE t SET a = 1; SET TRANSACTION READ ONLY; EXECUTE 'DROP TABLE ' || x; END",
                vec![],
            ),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            assert_eq!(changes(code), (names, false), "{code}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        for code in [
            "BEGIN EXECUTE x; END",
            "BEGIN PERFORM set_config(x, 'a', true); END",
            "BEGIN EXECUTE format('SET %I = 1', x); END",
            "BEGIN RESET ALL; END",
            "not 'code",
        ] {
            assert!(changes(code).1, "{code}");
        }
        assert!(Changes::of("plpy.execute(q)", "plpython3u").unseen);
        assert!(Changes::of("return 1", "plperl").is_empty());
    }
}
