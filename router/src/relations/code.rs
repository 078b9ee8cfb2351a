//! Names in code: what a function's body or a default mentions.

use std::borrow::Cow;

use crate::sql::{self, Lexer, TokenKind};

/// The identifiers of a text, folded; also those inside strings and dollar quotes, because code holds code.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    collect_words(text.as_bytes(), &mut found, 0);
    found.into_iter()
}

/// The names that are called in a text of PostgreSQL's own printing, and the words that are calls without parentheses.
pub(super) fn calls(text: &str) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    let mut lexer = Lexer::new(text.as_bytes());
    let mut last = None;
    // What PostgreSQL printed, its lexer reads.
    while let Ok(Some(token)) = lexer.next() {
        let name = sql::name(&token, text.as_bytes());
        let bare = |name: &str| {
            name.starts_with("current_") || name.starts_with("localtime") || name == "session_user"
        };
        if token.kind == TokenKind::Punct(b'(') {
            found.extend(last.take().map(Cow::into_owned));
        } else {
            let called = name
                .clone()
                .filter(|name| token.kind == TokenKind::Word && bare(name));
            found.extend(called.map(Cow::into_owned));
        }
        last = name;
    }
    found.into_iter()
}

/// How deep quotes inside quotes are read.
const QUOTE_DEPTH: u32 = 4;

fn collect_words(text: &[u8], found: &mut Vec<String>, depth: u32) {
    let mut lexer = Lexer::new(text);
    loop {
        match lexer.next() {
            Ok(Some(token)) => {
                let word = token.text(text);
                match token.kind {
                    TokenKind::Word => {
                        found.push(String::from_utf8_lossy(word).to_ascii_lowercase())
                    }
                    TokenKind::QuotedIdent => {
                        let inside = word.get(1..word.len() - 1).unwrap_or_default();
                        found.push(String::from_utf8_lossy(inside).replace("\"\"", "\""));
                    }
                    TokenKind::String | TokenKind::OtherString if depth < QUOTE_DEPTH => {
                        let inside: Vec<u8> = word
                            .iter()
                            .map(|b| if matches!(b, b'\'' | b'$') { b' ' } else { *b })
                            .collect();
                        collect_words(&inside, found, depth + 1);
                    }
                    TokenKind::String
                    | TokenKind::OtherString
                    | TokenKind::UnicodeIdent
                    | TokenKind::Integer
                    | TokenKind::Decimal
                    | TokenKind::OtherNumber
                    | TokenKind::Param
                    | TokenKind::Operator
                    | TokenKind::Punct(_) => {}
                }
            }
            Ok(None) => return,
            Err(_) => {
                // Code in another language: take it apart by what can be part of a name.
                let text = String::from_utf8_lossy(text).to_ascii_lowercase();
                let name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                found.extend(
                    text.split(|c| !name(c))
                        .filter(|word| !word.is_empty())
                        .map(str::to_owned),
                );
                return;
            }
        }
    }
}
