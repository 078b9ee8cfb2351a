//! Whether a trigger's code leaves a column of the row as it is.
//!
//! A BEFORE ROW trigger may change the row it is called for, the shard key included, and the row would then be stored on a shard that does
//! not own it. Judged by the tokens of PL/pgSQL: every mention of the row must be one of the few forms that cannot change the column.
//! What has another form counts as a change.

use super::introspect::FunctionRow;
use crate::sql::{self, Lexer, Token, TokenKind};

/// PostgreSQL's own trigger functions: they change columns that cannot be shard keys, or none.
const HARMLESS: [&str; 3] = [
    "suppress_redundant_updates_trigger",
    "tsvector_update_trigger",
    "tsvector_update_trigger_column",
];

/// Words that an expression follows: `=` behind what comes next compares.
const CONDITIONS: [&str; 10] = [
    "and", "elseif", "elsif", "if", "not", "on", "or", "when", "where", "while",
];

/// Whether the function, as a BEFORE ROW trigger, certainly leaves the column as it is.
pub(super) fn keeps(function: &FunctionRow, column: &str) -> bool {
    match (&function.source, function.language.as_str()) {
        (Some(source), "plpgsql") => {
            let source = source.as_bytes();
            let mut lexer = Lexer::new(source);
            let mut tokens = Vec::new();
            loop {
                match lexer.next() {
                    Ok(Some(token)) => tokens.push(token),
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
            Code { source, tokens }.keeps(column)
        }
        _ => function.schema == "pg_catalog" && HARMLESS.contains(&&*function.name),
    }
}

struct Code<'a> {
    source: &'a [u8],
    tokens: Vec<Token>,
}

impl Code<'_> {
    fn keeps(&self, column: &str) -> bool {
        (0..self.tokens.len()).all(|at| {
            if self.is_any(at, &["new", "old"]) || self.is_row(at) {
                !self.is_punct(at.checked_sub(1), b'.') && self.row_is_kept(at, column)
            } else if self.is_any(at, &["return"]) {
                self.returns_row(at + 1)
            } else {
                // The row under another name, or given to what may assign to it.
                !self.is_any(at, &["alias", "call"])
            }
        })
    }

    /// A mention of the row, at this token.
    fn row_is_kept(&self, at: usize, column: &str) -> bool {
        if !self.is_punct(Some(at + 1), b'.') {
            return self.whole_is_read(at);
        }
        let Some(token) = self.tokens.get(at + 2) else {
            return false;
        };
        if token.text(self.source) == b"*" {
            return true;
        }
        match sql::name(token, self.source) {
            None => false,
            Some(name) if name == column => !self.is_assigned(at),
            Some(_) => true,
        }
    }

    /// `to_jsonb(NEW)`, `NEW IS DISTINCT FROM OLD`, `RETURN NEW;`
    fn whole_is_read(&self, at: usize) -> bool {
        let before = at.checked_sub(1);
        let opens = self.is_punct(before, b'(');
        let closes = self.is_punct(Some(at + 1), b')');
        let argument = opens && (closes || self.is_punct(Some(at + 1), b','))
            || self.is_punct(before, b',') && closes;
        let distinct = before.is_some_and(|before| self.is_any(before, &["from"]))
            && at
                .checked_sub(2)
                .is_some_and(|at| self.is_any(at, &["distinct"]));
        let returned = before.is_some_and(|before| self.is_any(before, &["return"]));
        argument || distinct || returned || self.is_any(at + 1, &["is"])
    }

    /// Behind RETURN: the row as it is, or none.
    fn returns_row(&self, at: usize) -> bool {
        let ends = |at: usize| self.is_punct(Some(at), b';') || at >= self.tokens.len();
        let row = |at: usize| self.is_any(at, &["new", "old"]);
        let either = self.is_any(at, &["coalesce"])
            && self.is_punct(Some(at + 1), b'(')
            && row(at + 2)
            && self.is_punct(Some(at + 3), b',')
            && row(at + 4)
            && self.is_punct(Some(at + 5), b')');
        (row(at) || self.is_any(at, &["null"])) && ends(at + 1) || either && ends(at + 6)
    }

    /// Whether the column of the row that is mentioned at this token is what something is assigned to.
    fn is_assigned(&self, at: usize) -> bool {
        let after = at + 3;
        let next = self.tokens.get(after).map(|token| token.text(self.source));
        match next {
            Some(b":=" | b"[" | b".") => return true,
            Some(b"=") => {
                let before = at.checked_sub(1);
                let compares = self.is_punct(before, b'(')
                    || before.is_some_and(|before| self.is_any(before, &CONDITIONS));
                return !compares;
            }
            _ => {}
        }
        self.is_listed_target(at)
    }

    /// Whether it is one of the targets behind INTO or FOR.
    fn is_listed_target(&self, mut at: usize) -> bool {
        loop {
            let Some(before) = at.checked_sub(1) else {
                return false;
            };
            if self.is_any(before, &["into", "strict", "for", "foreach"]) {
                let inserts = before
                    .checked_sub(1)
                    .is_some_and(|at| self.is_any(at, &["insert", "merge"]));
                return !inserts;
            }
            if !self.is_punct(Some(before), b',') {
                return false;
            }
            // The target before it.
            let Some(mut first) = before.checked_sub(1) else {
                return false;
            };
            if self.is_punct(Some(first), b']') {
                return true;
            }
            if !self.is_name(first) {
                return false;
            }
            while first >= 2 && self.is_punct(Some(first - 1), b'.') && self.is_name(first - 2) {
                first -= 2;
            }
            at = first;
        }
    }

    fn is_name(&self, at: usize) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| sql::name(token, self.source).is_some())
    }

    fn is_any(&self, at: usize, words: &[&str]) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| words.iter().any(|word| token.is_word(self.source, word)))
    }

    /// Whether the row is meant by a quoted name.
    fn is_row(&self, at: usize) -> bool {
        let Some(token) = self.tokens.get(at) else {
            return false;
        };
        let quoted = || matches!(token.text(self.source), b"\"new\"" | b"\"old\"");
        token.kind == TokenKind::UnicodeIdent || token.kind == TokenKind::QuotedIdent && quoted()
    }

    fn is_punct(&self, at: Option<usize>, byte: u8) -> bool {
        let token = at.and_then(|at| self.tokens.get(at));
        token.is_some_and(|token| token.kind == TokenKind::Punct(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps_id(body: &str) -> bool {
        let function = FunctionRow {
            oid: 1,
            schema: "public".to_owned(),
            name: "f".to_owned(),
            kind: "f".to_owned(),
            volatility: "v".to_owned(),
            language: "plpgsql".to_owned(),
            source: Some(format!("DECLARE n int; BEGIN {body} END")),
            fixed: false,
            returns_set: false,
        };
        keeps(&function, "id")
    }

    #[test]
    fn code_that_only_reads_the_key() {
        for body in [
            "RETURN NEW;",
            "NEW.changed := now(); RETURN NEW;",
            "NEW.changed = NEW.id; RETURN NEW;",
            "IF NEW.id = 5 THEN RETURN NULL; END IF; RETURN NEW;",
            "IF (NEW.id = 5) AND OLD.id = NEW.id THEN RETURN NULL; END IF; RETURN COALESCE(NEW, OLD);",
            "IF NEW IS DISTINCT FROM OLD THEN NEW.n := 1; END IF; RETURN NEW;",
            "IF NEW.* IS DISTINCT FROM OLD.* THEN NEW.n := 1; END IF; RETURN NEW;",
            "INSERT INTO log VALUES (NEW.id, to_jsonb(NEW), row_to_json(OLD, true)); RETURN NEW;",
            "INSERT INTO log SELECT NEW.id, 5; RETURN NEW;",
            "SELECT count(*) INTO n FROM t WHERE a = NEW.id; RETURN OLD;",
            "SELECT a, NEW.id INTO n, NEW.other FROM t; RETURN NEW;",
            "EXECUTE 'SELECT $1' INTO n USING NEW.id; RETURN NEW;",
            "NEW.\"ID\" := 5; RETURN NEW;",
        ] {
            assert!(keeps_id(body), "{body}");
        }
    }

    #[test]
    fn code_that_may_change_the_key() {
        for body in [
            "NEW.id := 5; RETURN NEW;",
            "new.id = 5; RETURN NEW;",
            "NEW.\"id\" := 5; RETURN NEW;",
            "\"new\".id := 5; RETURN NEW;",
            "IF true THEN NEW.id = 5; END IF; RETURN NEW;",
            "<<l>> NEW.id = 5; RETURN NEW;",
            "f.new.id := 5; RETURN NEW;",
            "NEW := OLD; RETURN NEW;",
            "NEW = OLD; RETURN NEW;",
            "SELECT 1 INTO NEW.id; RETURN NEW;",
            "SELECT 1, 2 INTO STRICT n, NEW.id; RETURN NEW;",
            "SELECT 1, 2 INTO NEW.other, NEW.id FROM t; RETURN NEW;",
            "SELECT 1, 2 INTO a[1], NEW.id FROM t; RETURN NEW;",
            "SELECT * INTO NEW FROM t; RETURN NEW;",
            "FOR NEW.id IN 1..2 LOOP NULL; END LOOP; RETURN NEW;",
            "FOREACH NEW.id IN ARRAY a LOOP NULL; END LOOP; RETURN NEW;",
            "GET DIAGNOSTICS NEW.id = ROW_COUNT; RETURN NEW;",
            "GET DIAGNOSTICS n = ROW_COUNT, NEW.id = ROW_COUNT; RETURN NEW;",
            "CALL p(NEW.id); RETURN NEW;",
            "RETURN r;",
            "RETURN jsonb_populate_record(NEW, '{}');",
            "RETURN ROW(1, 2);",
            "RETURN (NEW);",
            "NEW.U&\"id\" := 5; RETURN NEW;",
            "FETCH c INTO NEW; RETURN NEW;",
        ] {
            assert!(!keeps_id(body), "{body}");
        }
        assert!(!keeps_id(
            "DECLARE r ALIAS FOR NEW; BEGIN r.id := 5; END; RETURN NEW;"
        ));
        assert!(!keeps_id(
            "DECLARE new t; BEGIN RETURN new; END; RETURN NEW;"
        ));
    }
}
