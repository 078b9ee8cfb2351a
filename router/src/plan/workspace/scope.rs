//! The items of FROMs: which columns can be named at a place, and what holds for the rows of each item.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "only names of columns mean one"
)]

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use sqlparser::ast::Expr;

use crate::plan::analyse::names::name;
use crate::plan::analyse::predicate::conjuncts;
use crate::relations::Relation;

/// The FROMs whose columns can be named at a place, outermost first.
pub(super) type Scopes<'a> = Vec<Rc<[Item<'a>]>>;

/// An item, by the FROM it is in and its place there.
pub(super) type Place = (usize, usize);

/// A condition that holds for every row of an item.
pub(super) struct Held {
    pub(super) expr: Expr,
    /// The tokens of the text that it is, once they have been looked for.
    pub(super) tokens: OnceCell<Option<Range<usize>>>,
}

impl Held {
    pub(super) fn new(expr: &Expr) -> Self {
        Self {
            expr: expr.clone(),
            tokens: OnceCell::new(),
        }
    }
}

/// An item of a FROM.
pub(super) struct Item<'a> {
    pub(super) alias: String,
    /// Where its name is in the text, in bytes.
    pub(super) place: usize,
    /// The relation, if it is one that could be fetched. The columns of anything else are not known.
    pub(super) relation: Option<&'a Relation>,
    /// What holds for every row it contributes.
    pub(super) conditions: Vec<Rc<Held>>,
    /// It is on the nullable side of an outer join: what is above that restricts it no more.
    pub(super) closed: bool,
}

/// A condition holds for what these items contribute.
pub(super) fn hold(items: &mut [Item<'_>], condition: &Expr) {
    let held = conjuncts(condition).into_iter();
    let held: Vec<Rc<Held>> = held
        .map(|condition| Rc::new(Held::new(condition)))
        .collect();
    for item in items.iter_mut().filter(|item| !item.closed) {
        item.conditions.extend_from_slice(&held);
    }
}

pub(super) fn close(items: &mut [Item<'_>]) {
    items.iter_mut().for_each(|item| item.closed = true);
}

pub(super) fn item<'s, 'a>(scopes: &'s Scopes<'a>, (level, at): Place) -> Option<&'s Item<'a>> {
    scopes.get(level)?.get(at)
}

/// The column that an expression is: its item, and its name. The innermost FROM that has it counts, if no item of unknown
/// columns there could have it instead.
pub(super) fn column<'e>(scopes: &Scopes<'_>, expr: &'e Expr) -> Option<(Place, Cow<'e, str>)> {
    match expr {
        Expr::Nested(inner) => column(scopes, inner),
        Expr::Identifier(ident) => {
            let name = name(ident).ok()?;
            let has = |item: &Item<'_>| {
                let relation = item.relation;
                relation.is_none_or(|relation| relation.column(&name).is_some())
            };
            let place = innermost(scopes, &has)?;
            item(scopes, place)?.relation?;
            Some((place, name))
        }
        Expr::CompoundIdentifier(parts) => {
            let [qualifier, column] = parts.as_slice() else {
                return None;
            };
            let (qualifier, column) = (name(qualifier).ok()?, name(column).ok()?);
            let place = innermost(scopes, &|item| item.alias == qualifier)?;
            item(scopes, place)?.relation?.column(&column)?;
            Some((place, column))
        }
        _ => None,
    }
}

/// The one item in the innermost FROM where there is any.
fn innermost(scopes: &Scopes<'_>, is: &dyn Fn(&Item<'_>) -> bool) -> Option<Place> {
    for (level, items) in scopes.iter().enumerate().rev() {
        let mut found = (0..items.len()).filter(|at| is(&items[*at]));
        if let Some(at) = found.next() {
            return found.next().is_none().then_some((level, at));
        }
    }
    None
}
