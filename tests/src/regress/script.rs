//! psql's scripts: statements with their lines, and the backslash commands between and after them.
//!
//! What psql does while it reads is done here too: it takes statements apart at semicolons outside quotes, comments,
//! parentheses and the bodies of SQL functions, and puts in the values of its variables.

use std::collections::BTreeMap;

/// psql's variables.
pub(super) type Variables = BTreeMap<String, String>;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// SQL to send.
    Statement(Statement),
    /// A command that stands alone: its name without the backslash, and the rest of the line.
    Command {
        /// Such as `set`.
        name: String,
        /// As written.
        arguments: String,
    },
}

/// SQL to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// The line its first word is in.
    pub(super) line: usize,
    /// Its text, without the semicolon.
    pub(super) text: String,
    /// Its text for the router, where psql's variables have other values there.
    pub(super) routed: Option<String>,
    /// The command that ended it in the place of a semicolon, such as `gset`, with its arguments.
    pub(super) ended_by: Option<(String, String)>,
}

/// A script that is being read.
#[derive(Debug, Clone)]
pub(super) struct Script<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

/// What decides where a statement ends.
#[derive(Debug, Default)]
struct Nesting {
    parentheses: usize,
    /// `BEGIN ATOMIC` and the `CASE` in it.
    bodies: usize,
    /// The first words, as long as they may tell that this makes a function.
    words: Vec<String>,
}

impl Nesting {
    fn word(&mut self, word: &str) {
        let word = word.to_ascii_lowercase();
        if self.words.len() < 4 {
            self.words.push(word.clone());
        }
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let function = |word: &str| matches!(word, "function" | "procedure");
        let makes_function = match words.as_slice() {
            ["create", "or", "replace", what, ..] | ["create", what, ..] => function(what),
            _ => false,
        };
        match word.as_str() {
            "begin" if makes_function => self.bodies += 1,
            "case" if self.bodies > 0 => self.bodies += 1,
            "end" => self.bodies = self.bodies.saturating_sub(1),
            _ => {}
        }
    }

    fn is_outside(&self) -> bool {
        self.parentheses == 0 && self.bodies == 0
    }
}

/// Commands that send what has been read so far.
const SENDING: [&str; 7] = ["g", "gx", "gset", "gexec", "gdesc", "crosstabview", "watch"];

impl<'a> Script<'a> {
    /// From its beginning.
    pub(super) fn new(text: &'a str) -> Script<'a> {
        Script {
            text,
            at: 0,
            line: 1,
        }
    }

    /// The next piece; none at the end. `escapes`: whether a backslash means something in a plain string.
    pub(super) fn next(&mut self, variables: &Variables, escapes: bool) -> Option<Piece> {
        let mut sql = String::new();
        let mut line = self.line;
        let mut nesting = Nesting::default();
        while let Some(next) = self.rest().chars().next() {
            let begun = !sql.trim().is_empty();
            if !begun {
                line = self.line;
            }
            match next {
                '-' if self.rest().starts_with("--") => {
                    self.take_while(|c| c != '\n');
                }
                '/' if self.rest().starts_with("/*") => {
                    let comment = self.comment();
                    // A comment in front is nobody's; one inside may be a hint.
                    sql.push_str(if begun { comment } else { "" });
                }
                ';' if nesting.is_outside() => {
                    self.take(1);
                    if begun {
                        return Some(Piece::Statement(statement(line, &sql, None)));
                    }
                }
                '\\' => {
                    if let Some(piece) = self.backslash(&mut sql, line) {
                        return Some(piece);
                    }
                }
                ':' => sql.push_str(&self.variable(variables)),
                c if c.is_alphabetic() || c == '_' => {
                    let word = self.word(&mut sql);
                    nesting.word(&word);
                }
                c if c.is_ascii_digit() => {
                    sql.push_str(self.take_while(|c| c.is_alphanumeric() || c == '.' || c == '_'));
                }
                '\'' | '"' => sql.push_str(self.quoted(next, escapes && next == '\'')),
                '$' => sql.push_str(self.dollar()),
                other => {
                    match other {
                        '(' => nesting.parentheses += 1,
                        ')' => nesting.parentheses = nesting.parentheses.saturating_sub(1),
                        _ => {}
                    }
                    sql.push_str(self.take(other.len_utf8()));
                }
            }
        }
        let begun = !sql.trim().is_empty();
        begun.then(|| Piece::Statement(statement(line, &sql, None)))
    }

    /// The lines of a COPY's data, which follow its statement up to `\.`.
    pub(super) fn copy_data(&mut self) -> &'a str {
        self.take_while(|c| c != '\n');
        self.take(1.min(self.rest().len()));
        let rest = self.rest();
        let mut length = 0;
        for line in rest.split_inclusive('\n') {
            if line.trim_end() == "\\." {
                self.take(length + line.len());
                return &rest[..length];
            }
            length += line.len();
        }
        self.take(length)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.rest()[..length];
        self.at += length;
        self.line += taken.matches('\n').count();
        taken
    }

    fn take_while(&mut self, mut holds: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        self.take(rest.find(|c| !holds(c)).unwrap_or(rest.len()))
    }

    /// A word, or a string with a letter in front of it.
    fn word(&mut self, sql: &mut String) -> String {
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_' || c == '$');
        sql.push_str(word);
        if word.eq_ignore_ascii_case("e") && self.rest().starts_with('\'') {
            sql.push_str(self.quoted('\'', true));
        }
        word.to_owned()
    }

    fn quoted(&mut self, quote: char, escapes: bool) -> &'a str {
        let mut inside = self.rest().char_indices().skip(1);
        while let Some((at, c)) = inside.next() {
            if c == '\\' && escapes {
                inside.next();
            } else if c == quote {
                return self.take(at + 1);
            }
        }
        self.take(self.rest().len())
    }

    fn dollar(&mut self) -> &'a str {
        let rest = self.rest();
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let tag = rest[1..].find(|c| !part(c)).map_or(rest.len(), |at| at + 1);
        let starts_with_digit = rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if starts_with_digit || !rest[tag..].starts_with('$') {
            return self.take(1);
        }
        let tag = &rest[..=tag];
        let end = rest[tag.len()..].find(tag);
        self.take(end.map_or(rest.len(), |at| at + 2 * tag.len()))
    }

    fn comment(&mut self) -> &'a str {
        let rest = self.rest();
        let (mut depth, mut at) = (0usize, 0);
        while at < rest.len() {
            if rest[at..].starts_with("/*") {
                (depth, at) = (depth + 1, at + 2);
            } else if rest[at..].starts_with("*/") {
                (depth, at) = (depth - 1, at + 2);
            } else {
                at += rest[at..].chars().next().map_or(1, char::len_utf8);
            }
            if depth == 0 {
                break;
            }
        }
        self.take(at)
    }

    /// `:name`, `:'name'` and `:"name"`; what is no known variable stays as it is.
    fn variable(&mut self, variables: &Variables) -> String {
        let rest = self.rest();
        if rest.starts_with("::") || rest.starts_with(":=") {
            return self.take(2).to_owned();
        }
        let quote = rest[1..].chars().next().filter(|c| matches!(c, '\'' | '"'));
        let start = 1 + usize::from(quote.is_some());
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let length = rest[start..]
            .find(|c| !part(c))
            .unwrap_or(rest.len() - start);
        let closed = quote.is_none_or(|quote| rest[start + length..].starts_with(quote));
        match variables.get(&rest[start..start + length]) {
            Some(value) if length > 0 && closed => {
                self.take(start + length + usize::from(quote.is_some()));
                match quote {
                    Some('\'') => format!("'{}'", value.replace('\'', "''")),
                    Some(_) => format!("\"{}\"", value.replace('"', "\"\"")),
                    None => value.clone(),
                }
            }
            _ => self.take(1).to_owned(),
        }
    }

    /// A backslash: what it makes a piece of, if of anything.
    fn backslash(&mut self, sql: &mut String, line: usize) -> Option<Piece> {
        if self.rest().starts_with("\\;") {
            self.take(2);
            sql.push(';');
            return None;
        }
        self.take(1);
        let name = self
            .take_while(|c| !c.is_whitespace() && c != '\\')
            .to_owned();
        let arguments = self.take_while(|c| c != '\n').trim();
        // `\\` parts commands in one line; the scripts have statements on both sides of it only rarely.
        let arguments = arguments.split("\\\\").next().unwrap_or_default().trim();
        let begun = !sql.trim().is_empty();
        if begun && SENDING.contains(&name.as_str()) {
            let ended_by = Some((name, arguments.to_owned()));
            return Some(Piece::Statement(statement(line, sql, ended_by)));
        }
        if begun {
            if name == "r" {
                sql.clear();
            }
            return None;
        }
        let arguments = arguments.to_owned();
        Some(Piece::Command { name, arguments })
    }
}

fn statement(line: usize, sql: &str, ended_by: Option<(String, String)>) -> Statement {
    Statement {
        line,
        text: sql.trim().to_owned(),
        routed: None,
        ended_by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(text: &str, variables: &[(&str, &str)]) -> Vec<(usize, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Variables = variables.iter().map(owned).collect();
        let mut script = Script::new(text);
        let mut found = Vec::new();
        while let Some(piece) = script.next(&variables, false) {
            match piece {
                Piece::Statement(statement) => found.push((statement.line, statement.text)),
                Piece::Command { name, arguments } => {
                    found.push((0, format!("{name}|{arguments}")))
                }
            }
        }
        found
    }

    fn texts(text: &str) -> Vec<String> {
        statements(text, &[])
            .into_iter()
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn statements_end_at_semicolons_that_stand_outside() {
        assert_eq!(
            texts(
                "select ';', \"a;b\", $$;$$, $t$;$$;$t$, E'\\';' -- ;\n /* ; /* ; */ ; */ ; x (;) ;"
            ),
            [
                "select ';', \"a;b\", $$;$$, $t$;$$;$t$, E'\\';' \n /* ; /* ; */ ; */",
                "x (;)"
            ]
        );
        assert_eq!(
            texts(
                "create function f() begin atomic select 1; select case when true then 1 end; end; begin; end"
            ),
            [
                "create function f() begin atomic select 1; select case when true then 1 end; end",
                "begin",
                "end"
            ]
        );
        assert_eq!(
            texts("select $1; a \\; b; select '\\'; c"),
            ["select $1", "a ; b", "select '\\'", "c"]
        );
    }

    #[test]
    fn backslashes_escape_where_strings_are_not_standard() {
        let text = "select 'a\\';' x; select \"a\\\";";
        let (mut standard, mut escaping) = (Script::new(text), Script::new(text));
        let known = Variables::new();
        let first = |script: &mut Script<'_>, escapes: bool| match script.next(&known, escapes) {
            Some(Piece::Statement(statement)) => statement.text,
            other => panic!("{other:?}"),
        };
        assert_eq!(first(&mut standard, false), "select 'a\\'");
        assert_eq!(first(&mut escaping, true), "select 'a\\';' x");
        assert_eq!(first(&mut escaping, true), "select \"a\\\"");
    }

    #[test]
    fn lines_are_those_of_the_first_word() {
        assert_eq!(
            statements("-- a\n\nselect\n1;\n  two;", &[]),
            [(3, "select\n1".to_owned()), (5, "two".to_owned())]
        );
    }

    #[test]
    fn variables_are_put_in_where_they_are_known() {
        let known = [("f", "it's"), ("n", "5")];
        let found = statements("a :f :'f' :\"f\" b::n x[1:2] ':n' :unknown;", &known);
        assert_eq!(
            found[0].1,
            "a it's 'it''s' \"it's\" b::n x[1:2] ':n' :unknown"
        );
    }

    #[test]
    fn commands_end_statements_or_stand_alone() {
        assert_eq!(
            texts("\\set x 1\nselect 1 as a \\gset\n\\d t\nselect 2;"),
            ["set|x 1", "select 1 as a", "d|t", "select 2"]
        );
        let mut script = Script::new("select 1 as a \\gset p_\nx");
        let Some(Piece::Statement(first)) = script.next(&Variables::new(), false) else {
            panic!("a statement");
        };
        assert_eq!(first.ended_by, Some(("gset".to_owned(), "p_".to_owned())));
    }

    #[test]
    fn data_of_a_copy_follows_it() {
        let mut script = Script::new("copy t from stdin;\n1\ta;\n2\tb\n\\.\nselect 1;");
        script.next(&Variables::new(), false);
        assert_eq!(script.copy_data(), "1\ta;\n2\tb\n");
        assert_eq!(
            script.next(&Variables::new(), false),
            Some(Piece::Statement(statement(5, "select 1", None)))
        );
    }
}
