//! Statements about the transaction and the session: the session handles them itself.

use super::command::{Command, Discard, Isolation, SetValue, TransactionModes};
use super::words::Words;
use crate::relations::constant;
use crate::sql::{self, Token, TokenKind};

/// `BEGIN`, `START TRANSACTION`, `COMMIT`, `ROLLBACK`, `PREPARE TRANSACTION`, savepoints. `None`: not one of them, or not well formed.
pub(super) fn transaction(words: &Words<'_>) -> Option<Command> {
    let mut words = words.clone();
    let command = if words.eat("begin") {
        words.eat_any(&["work", "transaction"]);
        Command::Begin(modes(&mut words)?)
    } else if words.eat_all(&["start", "transaction"]) {
        Command::Begin(modes(&mut words)?)
    } else if words.eat_all(&["prepare", "transaction"]) {
        Command::PrepareTransaction(constant(words.sql, words.next()?)?)
    } else if words.eat_all(&["commit", "prepared"]) {
        Command::EndPrepared {
            name: constant(words.sql, words.next()?)?,
            commit: true,
        }
    } else if words.eat_all(&["rollback", "prepared"]) {
        Command::EndPrepared {
            name: constant(words.sql, words.next()?)?,
            commit: false,
        }
    } else if words.eat_any(&["commit", "end"]) {
        words.eat_any(&["work", "transaction"]);
        Command::Commit {
            chain: chain(&mut words),
        }
    } else if words.eat_any(&["rollback", "abort"]) {
        rollback(&mut words)?
    } else if words.eat("savepoint") {
        Command::Savepoint(words.name()?)
    } else if words.eat("release") {
        words.eat("savepoint");
        Command::Release(words.name()?)
    } else {
        return None;
    };
    words.is_done().then_some(command)
}

fn rollback(words: &mut Words<'_>) -> Option<Command> {
    words.eat_any(&["work", "transaction"]);
    if words.eat("to") {
        words.eat("savepoint");
        return Some(Command::RollbackTo(words.name()?));
    }
    Some(Command::Rollback {
        chain: chain(words),
    })
}

fn chain(words: &mut Words<'_>) -> bool {
    if words.eat_all(&["and", "no", "chain"]) {
        return false;
    }
    words.eat_all(&["and", "chain"])
}

/// Transaction modes to the end of the statement.
fn modes(words: &mut Words<'_>) -> Option<TransactionModes> {
    let mut modes = TransactionModes::default();
    while !words.is_done() {
        if words.eat_all(&["isolation", "level"]) {
            modes.isolation = Some(if words.eat("serializable") {
                Isolation::Serializable
            } else if words.eat_all(&["repeatable", "read"]) {
                Isolation::RepeatableRead
            } else if words.eat_all(&["read", "committed"]) {
                Isolation::ReadCommitted
            } else if words.eat_all(&["read", "uncommitted"]) {
                Isolation::ReadUncommitted
            } else {
                return None;
            });
        } else if words.eat_all(&["read", "only"]) {
            modes.read_only = Some(true);
        } else if words.eat_all(&["read", "write"]) {
            modes.read_only = Some(false);
        } else if words.eat_all(&["not", "deferrable"]) {
            modes.deferrable = Some(false);
        } else if words.eat("deferrable") {
            modes.deferrable = Some(true);
        } else {
            return None;
        }
        words.eat_symbol(",");
    }
    Some(modes)
}

/// `SET`, `RESET`, `SHOW`, `DISCARD`, `DEALLOCATE`, cursors, `PREPARE`, `EXECUTE`.
pub(super) fn session(words: &Words<'_>) -> Option<Command> {
    let mut words = words.clone();
    let command = if words.eat("set") {
        return set(&mut words);
    } else if words.eat("reset") {
        Command::Reset(reset(&mut words)?)
    } else if words.eat("show") {
        Command::Show(show(&mut words)?)
    } else if words.eat("discard") {
        Command::Discard(discard(&mut words)?)
    } else if words.eat("deallocate") {
        words.eat("prepare");
        Command::Deallocate(if words.eat("all") {
            None
        } else {
            Some(words.name()?)
        })
    } else if words.eat("close") {
        Command::CloseCursor(if words.eat("all") {
            None
        } else {
            Some(words.name()?)
        })
    } else if words.eat_any(&["fetch", "move"]) {
        // The name comes last, whatever direction and count came before.
        let name = words
            .rest()
            .last()
            .and_then(|token| sql::name(token, words.sql))?;
        return Some(Command::Fetch {
            name: name.into_owned(),
        });
    } else if words.eat("prepare") {
        return prepare(&mut words);
    } else if words.eat("execute") {
        let name = words.name()?;
        let arguments = if words.is_done() {
            Vec::new()
        } else {
            words.list()?
        };
        Command::Execute { name, arguments }
    } else {
        return None;
    };
    words.is_done().then_some(command)
}

fn prepare(words: &mut Words<'_>) -> Option<Command> {
    if words.is("transaction") {
        return None;
    }
    let name = words.name()?;
    let types = if words.is("as") {
        Vec::new()
    } else {
        words.list()?
    };
    if !words.eat("as") || words.is_done() {
        return None;
    }
    Some(Command::Prepare {
        name,
        types,
        statement: words.range(),
    })
}

fn discard(words: &mut Words<'_>) -> Option<Discard> {
    if words.eat("all") {
        Some(Discard::All)
    } else if words.eat("plans") {
        Some(Discard::Plans)
    } else if words.eat("sequences") {
        Some(Discard::Sequences)
    } else if words.eat_any(&["temp", "temporary"]) {
        Some(Discard::Temp)
    } else {
        None
    }
}

/// A setting's name: words joined by dots, or one of the spellings of the standard.
fn setting(words: &mut Words<'_>) -> Option<String> {
    let mut name = words.name()?.to_ascii_lowercase();
    while words.eat_symbol(".") {
        name.push('.');
        name.push_str(&words.name()?.to_ascii_lowercase());
    }
    Some(name)
}

fn standard_setting(words: &mut Words<'_>) -> Option<&'static str> {
    if words.eat_all(&["time", "zone"]) {
        Some("timezone")
    } else if words.eat_all(&["transaction", "isolation", "level"]) {
        Some("transaction_isolation")
    } else if words.eat_all(&["session", "authorization"]) {
        Some("session_authorization")
    } else {
        None
    }
}

fn reset(words: &mut Words<'_>) -> Option<Option<String>> {
    if words.eat("all") {
        return Some(None);
    }
    match standard_setting(words) {
        Some(name) => Some(Some(name.to_owned())),
        None => setting(words).map(Some),
    }
}

fn show(words: &mut Words<'_>) -> Option<String> {
    match standard_setting(words) {
        Some(name) => Some(name.to_owned()),
        None => setting(words),
    }
}

fn set(words: &mut Words<'_>) -> Option<Command> {
    if words.eat("transaction") {
        if words.is("snapshot") {
            return None;
        }
        return modes(words).map(Command::SetTransaction);
    }
    if words.eat_all(&["session", "characteristics", "as", "transaction"]) {
        return modes(words).map(Command::SetSessionCharacteristics);
    }
    if words.eat("constraints") {
        return Some(Command::SetConstraints);
    }
    let local = words.eat("local");
    if !local && !words.clone().eat_all(&["session", "authorization"]) {
        words.eat("session");
    }
    let spelled = if words.eat_all(&["time", "zone"]) {
        Some("timezone")
    } else if words.eat("names") {
        Some("client_encoding")
    } else if words.eat("schema") {
        Some("search_path")
    } else if words.eat_all(&["xml", "option"]) {
        Some("xmloption")
    } else if words.eat_all(&["session", "authorization"]) {
        Some("session_authorization")
    } else if words.is("role")
        && !matches!(
            words.rest().get(1).map(|token| token.text(words.sql)),
            Some(b"=" | b"to" | b"TO")
        )
    {
        words.next();
        Some("role")
    } else {
        None
    };
    let name = match spelled {
        Some(name) => name.to_owned(),
        None => {
            let name = setting(words)?;
            if !words.eat("to") && !words.eat_symbol("=") {
                return None;
            }
            name
        }
    };
    let value = value(words, spelled)?;
    Some(Command::Set { name, value, local })
}

/// A constant of text, also `E'…'` where nothing in it is escaped.
fn text(sql: &[u8], token: &Token) -> Option<String> {
    let escaped = match token.text(sql) {
        [b'e' | b'E', b'\'', inside @ .., b'\''] => inside,
        _ => return constant(sql, token),
    };
    let text = std::str::from_utf8(escaped).ok()?;
    (!text.contains('\\')).then(|| text.replace("''", "'"))
}

/// The value of a SET to the end of the statement; `None` inside is DEFAULT.
fn value(words: &mut Words<'_>, spelled: Option<&str>) -> Option<Option<SetValue>> {
    let default = words.is("default") || (spelled == Some("timezone") && words.is("local"));
    if default || (spelled == Some("client_encoding") && words.is_done()) {
        words.next();
        return words.is_done().then_some(None);
    }
    let mut items = Vec::new();
    while let Some(token) = words.next() {
        let raw = String::from_utf8_lossy(token.text(words.sql)).into_owned();
        let item = match token.kind {
            TokenKind::Word => raw.to_ascii_lowercase(),
            TokenKind::QuotedIdent => sql::name(token, words.sql)?.into_owned(),
            TokenKind::String | TokenKind::OtherString => text(words.sql, token)?,
            TokenKind::Integer | TokenKind::Decimal | TokenKind::OtherNumber => raw,
            TokenKind::Operator if matches!(raw.as_str(), "-" | "+") => {
                let number = String::from_utf8_lossy(words.next()?.text(words.sql)).into_owned();
                if raw == "-" {
                    format!("-{number}")
                } else {
                    number
                }
            }
            TokenKind::UnicodeIdent
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Punct(_) => return None,
        };
        // `SET TIME ZONE INTERVAL '1' HOUR …` has no list form.
        if item == "interval" && token.kind == TokenKind::Word {
            return Some(Some(SetValue { items: Vec::new() }));
        }
        items.push(item);
        if !words.is_done() && !words.eat_symbol(",") {
            return None;
        }
    }
    if items.is_empty() {
        None
    } else {
        Some(Some(SetValue { items }))
    }
}
