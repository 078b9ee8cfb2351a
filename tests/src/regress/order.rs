//! What an answer's order is by: the columns of the ORDER BY at the top of a query, where they are columns of the result.

use super::statement::{Token, tokens};

/// How the rows of a query are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Not at all.
    Any,
    /// By these columns of the result, in this order of importance.
    Columns(Vec<usize>),
    /// By something that is not, or not wholly, in the result: these columns of it come first.
    Hidden(Vec<usize>),
}

impl Order {
    /// Of a query with these columns.
    pub(super) fn of(sql: &str, columns: &[String]) -> Order {
        let tokens = tokens(sql);
        let Some(items) = items(&tokens) else {
            return Order::Any;
        };
        let mut found = Vec::new();
        for item in items {
            match column(item, columns) {
                Some(at) => found.push(at),
                None => return Order::Hidden(found),
            }
        }
        Order::Columns(found)
    }
}

/// The parts of the last ORDER BY outside parentheses; none if there is none.
fn items(tokens: &[Token]) -> Option<Vec<&[Token]>> {
    let depth = tokens.iter().take_while(|token| token.text == "(").count();
    let outside = |token: &Token| token.depth == 0 || (depth > 0 && closed_around(tokens, token));
    let by = tokens
        .windows(2)
        .rposition(|pair| pair[0].text == "order" && pair[1].text == "by" && outside(&pair[0]))?;
    let level = tokens[by].depth;
    let rest = &tokens[by + 2..];
    let ends = |token: &Token| {
        let ending = matches!(token.text.as_str(), "limit" | "offset" | "fetch" | "for");
        token.depth < level || (token.depth == level && (ending || token.text == ")"))
    };
    let rest = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
    Some(
        rest.split(|token| token.depth == level && token.text == ",")
            .collect(),
    )
}

/// Whether the whole statement stands in the parentheses that are around this token.
fn closed_around(tokens: &[Token], token: &Token) -> bool {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return false;
    };
    let inner = tokens.iter().skip(1).take(tokens.len().saturating_sub(2));
    token.depth == 1
        && first.text == "("
        && last.text == ")"
        && inner
            .min_by_key(|token| token.depth)
            .is_some_and(|token| token.depth == 1)
}

/// The column of the result that an item names.
fn column(item: &[Token], columns: &[String]) -> Option<usize> {
    let words: Vec<&str> = item.iter().map(|token| token.text.as_str()).collect();
    let end = words
        .iter()
        .position(|word| matches!(*word, "asc" | "desc" | "nulls" | "using"))
        .unwrap_or(words.len());
    let name = match &words[..end] {
        [name] | [_, ".", name] => *name,
        _ => return None,
    };
    if let Ok(number) = name.parse::<usize>() {
        return number.checked_sub(1).filter(|at| *at < columns.len());
    }
    let name = name.trim_matches('"');
    let mut named = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| *column == name);
    let (at, _) = named.next()?;
    named.next().is_none().then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sql: &str) -> Order {
        Order::of(sql, &["a".to_owned(), "b".to_owned(), "x y".to_owned()])
    }

    #[test]
    fn the_top_order_counts() {
        assert_eq!(order("select a from (select 1 order by b) t"), Order::Any);
        assert_eq!(order("select a, rank() over (order by b)"), Order::Any);
        assert_eq!(
            order("select a order by 2 desc, t.a using < limit 3"),
            Order::Columns(vec![1, 0])
        );
        assert_eq!(
            order("select a order by \"x y\" nulls first for update"),
            Order::Columns(vec![2])
        );
        assert_eq!(order("(select a order by b)"), Order::Columns(vec![1]));
        assert_eq!(
            order("(select a order by b) union (select b order by a)"),
            Order::Any
        );
    }

    #[test]
    fn what_is_not_in_the_result_is_hidden() {
        assert_eq!(order("select a order by b, c, a"), Order::Hidden(vec![1]));
        assert_eq!(order("select a order by a + 1"), Order::Hidden(vec![]));
    }
}
