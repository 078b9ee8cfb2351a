//! What a statement is for the comparison: a read, a change, a setting.

use std::ops::Range;

/// What is done with a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads: runs on both sides and is compared.
    Query,
    /// DECLARE, FETCH and MOVE: both sides, compared.
    Cursor,
    /// PREPARE, and whether what is prepared reads.
    Prepare(String, bool),
    /// EXECUTE of this name.
    Execute(String),
    /// SET, RESET, DEALLOCATE, DISCARD: every session of the file.
    Setting,
    /// BEGIN, what ends it or comes between, and CLOSE: both sides.
    Transaction,
    /// Changes rows: on the plain server only; its rows are then given to the shards.
    Data,
    /// `COPY … FROM`, with its input after it or in a file.
    CopyIn,
    /// Makes or changes objects: on the plain server and on every shard.
    Definition,
    /// Changes how rows are kept, not what they are: on the plain server only.
    Maintenance,
    /// Waits for locks or for constraints: on the plain server only, unless writes are compared.
    Wait,
    /// `COPY … TO STDOUT`: compared where writes are.
    CopyOut,
    /// Nothing to compare: plans, notifications.
    Aside,
}

/// A word or sign outside quotes, comments and bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// In small letters; quoted names and constants keep their quotes.
    pub(super) text: String,
    /// Open parentheses around it.
    pub(super) depth: usize,
    /// Where it is.
    pub(super) range: Range<usize>,
}

/// The tokens of a statement.
pub(super) fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(next) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let length = match next {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '-' if rest.starts_with("--") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '/' if rest.starts_with("/*") => {
                at += rest.find("*/").map_or(rest.len(), |end| end + 2);
                continue;
            }
            '\'' | '"' => quoted(rest, next, false),
            'e' | 'E' if rest[1..].starts_with('\'') => 1 + quoted(&rest[1..], '\'', true),
            '$' => dollar(rest),
            c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            other => other.len_utf8(),
        };
        if next == ')' {
            depth = depth.saturating_sub(1);
        }
        let text = &rest[..length];
        let constant = matches!(next, '\'' | '"' | '$');
        tokens.push(Token {
            text: if constant {
                text.to_owned()
            } else {
                text.to_lowercase()
            },
            depth,
            range: at..at + length,
        });
        if next == '(' {
            depth += 1;
        }
        at += length;
    }
    tokens
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut inside = text.char_indices().skip(1);
    while let Some((at, c)) = inside.next() {
        if c == '\\' && escapes {
            inside.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

fn dollar(text: &str) -> usize {
    let tag = text[1..]
        .find(|c| !is_part(c))
        .map_or(text.len(), |at| at + 1);
    let digit = text[1..].starts_with(|c: char| c.is_ascii_digit());
    if digit || !text[tag..].starts_with('$') {
        return if digit { tag } else { 1 };
    }
    let tag = &text[..=tag];
    let end = text[tag.len()..].find(tag);
    end.map_or(text.len(), |at| at + 2 * tag.len())
}

impl Kind {
    /// Of a statement.
    pub(super) fn of(sql: &str) -> Kind {
        Kind::of_tokens(&tokens(sql))
    }

    fn of_tokens(tokens: &[Token]) -> Kind {
        let mut words = tokens.iter().map(|token| token.text.as_str());
        let first = words.find(|word| *word != "(").unwrap_or_default();
        let second = words.next().unwrap_or_default();
        match first {
            "select" | "with" | "values" | "table" => read(tokens),
            "declare" | "fetch" | "move" => Kind::Cursor,
            "prepare" if second == "transaction" => Kind::Aside,
            "prepare" => {
                let body = tokens.iter().position(|token| token.text == "as");
                let body = body.map_or(&[][..], |at| &tokens[at + 1..]);
                Kind::Prepare(second.to_owned(), Kind::of_tokens(body) == Kind::Query)
            }
            "execute" => Kind::Execute(second.to_owned()),
            "set" if second == "constraints" => Kind::Wait,
            "lock" => Kind::Wait,
            "set" | "reset" | "deallocate" | "discard" => Kind::Setting,
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint"
            | "release" | "close" => Kind::Transaction,
            "insert" | "update" | "delete" | "merge" | "truncate" => Kind::Data,
            "copy" => copy(tokens),
            "vacuum" | "analyze" | "analyse" | "cluster" | "reindex" => Kind::Maintenance,
            "explain" | "show" | "listen" | "notify" | "unlisten" | "checkpoint" | "load" => {
                Kind::Aside
            }
            _ => Kind::Definition,
        }
    }
}

/// A query, unless it stores what it reads, or something in it writes.
fn read(tokens: &[Token]) -> Kind {
    let writes = tokens.windows(2).any(|pair| {
        let opens = matches!(pair[0].text.as_str(), "(" | ")");
        opens
            && matches!(
                pair[1].text.as_str(),
                "insert" | "update" | "delete" | "merge"
            )
    });
    if writes {
        return Kind::Data;
    }
    match tokens
        .iter()
        .any(|token| token.depth == 0 && token.text == "into")
    {
        true => Kind::Definition,
        false => Kind::Query,
    }
}

fn copy(tokens: &[Token]) -> Kind {
    let direction = tokens
        .iter()
        .find(|token| token.depth == 0 && matches!(token.text.as_str(), "from" | "to"));
    match direction.map(|token| token.text.as_str()) {
        Some("from") => Kind::CopyIn,
        _ if tokens.iter().any(|token| token.text == "stdout") => Kind::CopyOut,
        _ => Kind::Aside,
    }
}

/// A statement that makes a temporary relation, with the word taken out, so that it makes one that can be sharded. What
/// asks for more of a temporary relation than that it goes away in the end stays as it is.
pub(super) fn permanent(sql: &str) -> Option<String> {
    let tokens = tokens(sql);
    let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    let temporary = |word: &str| matches!(word, "temp" | "temporary");
    let at = match words.as_slice() {
        ["create", "or", "replace", word, ..] if temporary(word) => 3,
        ["create", word, ..] if temporary(word) => 1,
        ["create", "local" | "global", word, ..] if temporary(word) => 2,
        ["select" | "with" | "values" | "table", ..] => {
            let into = words
                .windows(2)
                .position(|pair| pair[0] == "into" && temporary(pair[1]))?;
            into + 1
        }
        _ => return None,
    };
    let on_commit = words.windows(2).any(|pair| pair == ["on", "commit"]);
    if on_commit || words.contains(&"pg_temp") {
        return None;
    }
    let range = &tokens[at].range;
    Some(format!(
        "{}{}",
        &sql[..range.start],
        sql[range.end..].trim_start()
    ))
}

/// A `COPY … FROM 'file'` as one `FROM STDIN`, and the file.
pub(super) fn copied_file(sql: &str) -> Option<(String, String)> {
    let tokens = tokens(sql);
    let from = tokens
        .iter()
        .position(|token| token.depth == 0 && token.text == "from")?;
    let file = tokens
        .get(from + 1)
        .filter(|token| token.text.starts_with('\''))?;
    let name = file.text.trim_matches('\'').replace("''", "'");
    Some((
        format!(
            "{}STDIN{}",
            &sql[..file.range.start],
            &sql[file.range.end..]
        ),
        name,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_told_from_writes() {
        for sql in [
            "select 1",
            "((select 1)) union select 2",
            "with a as (select 1 for update) table a",
            "values (1)",
            "/* into */ select 'into' -- into",
            "select (select 1 from insert_log) for no key update",
        ] {
            assert_eq!(Kind::of(sql), Kind::Query, "{sql}");
        }
        assert_eq!(
            Kind::of("with a as (delete from t returning *) select * from a"),
            Kind::Data
        );
        assert_eq!(
            Kind::of("with a as (select 1) insert into t table a"),
            Kind::Data
        );
        assert_eq!(Kind::of("select * into x from y"), Kind::Definition);
        assert_eq!(Kind::of("SELECT a INTO TEMP x FROM y"), Kind::Definition);
    }

    #[test]
    fn other_statements_have_their_kinds() {
        assert_eq!(Kind::of("copy t (a) from stdin"), Kind::CopyIn);
        assert_eq!(Kind::of("copy (select 1 from t) to stdout"), Kind::CopyOut);
        assert_eq!(Kind::of("copy t to '/a/b.data'"), Kind::Aside);
        assert_eq!(
            Kind::of("prepare q(int) as select $1"),
            Kind::Prepare("q".to_owned(), true)
        );
        assert_eq!(
            Kind::of("prepare q as delete from t"),
            Kind::Prepare("q".to_owned(), false)
        );
        assert_eq!(Kind::of("execute q(1)"), Kind::Execute("q".to_owned()));
        assert_eq!(Kind::of("alter table t add a int"), Kind::Definition);
    }

    #[test]
    fn temporary_relations_become_permanent() {
        let is = |sql: &str| permanent(sql);
        assert_eq!(
            is("CREATE TEMP TABLE t (a int)").as_deref(),
            Some("CREATE TABLE t (a int)")
        );
        assert_eq!(
            is("create or replace temporary view v as select 1").as_deref(),
            Some("create or replace view v as select 1")
        );
        assert_eq!(
            is("select 1 into temp x").as_deref(),
            Some("select 1 into x")
        );
        assert_eq!(is("create temp table t (a int) on commit drop"), None);
        assert_eq!(is("create table temp (a int)"), None);
    }

    #[test]
    fn files_become_standard_input() {
        assert_eq!(
            copied_file("copy t from '/a/b.data' with (format csv)"),
            Some((
                "copy t from STDIN with (format csv)".to_owned(),
                "/a/b.data".to_owned()
            ))
        );
        assert_eq!(copied_file("copy t from stdin"), None);
    }
}
