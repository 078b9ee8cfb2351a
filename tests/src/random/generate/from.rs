//! FROM: tables, subqueries, VALUES, functions, and every kind of join between them.

use super::{Atom, Generator, columns};
use crate::random::query::{Expr, From, On};
use crate::random::schema::{TABLES, Table, VIEW_COLUMNS};
use crate::random::types::Type;

/// Pairs of columns that statements join by: colocated keys, keys that are not colocated, a key with another column.
const PAIRS: [(&str, &str, &str, &str); 14] = [
    ("person", "id", "purchase", "person_id"),
    ("person", "id", "purchase", "person_id"),
    ("word", "word", "phrase", "word"),
    ("word", "word", "phrase", "word"),
    ("person", "id", "device", "person_id"),
    ("person", "id", "event", "person_id"),
    ("person", "id", "account", "person_id"),
    ("person", "id", "account", "id"),
    ("person", "id", "note", "person_id"),
    ("purchase", "person_id", "event", "person_id"),
    ("person", "born", "event", "day"),
    ("region", "code", "country", "code"),
    ("person", "code", "coupon", "code"),
    ("person", "token", "device", "token"),
];

impl Generator {
    /// One to three relations, joined; what they have is in the level's scope from then on.
    pub(super) fn relations(&mut self) -> Vec<From> {
        let count = self.chance.weighted(&[(11, 1), (9, 2), (4, 3)]);
        if count > 1 && self.chance.percent(35) {
            return vec![self.known_pair(count - 2)];
        }
        let (mut from, atoms) = self.relation(false);
        self.see(atoms);
        let mut list = Vec::new();
        for _ in 1..count {
            if self.chance.percent(10) {
                // A comma; what follows is joined by the filter, or by nothing.
                let (next, atoms) = self.relation(true);
                self.see(atoms);
                list.push(std::mem::replace(&mut from, next));
            } else {
                from = self.join(from);
            }
        }
        list.push(from);
        list
    }

    pub(super) fn see(&mut self, atoms: Vec<Atom>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.atoms.extend(atoms);
            scope.relations += 1;
        }
    }

    /// Two tables joined by columns that belong together, and so many more relations.
    fn known_pair(&mut self, more: usize) -> From {
        let (a, a_column, b, b_column) = *self.chance.pick(&PAIRS);
        let ((a, a_column), (b, b_column)) = if self.chance.percent(50) {
            ((a, a_column), (b, b_column))
        } else {
            ((b, b_column), (a, a_column))
        };
        let (left, left_atoms) = self.named_table(a);
        let (right, right_atoms) = self.named_table(b);
        let find = |atoms: &[Atom], table, column| atoms[position(table, column)].expr.clone();
        let equal = vec![
            find(&left_atoms, a, a_column).into(),
            find(&right_atoms, b, b_column).into(),
        ];
        let mut on = Expr::of(Type::Bool, "{} = {}", equal);
        self.see(left_atoms);
        self.see(right_atoms);
        let kind = self.join_kind();
        if kind != "FULL JOIN" && self.chance.percent(35) {
            let mut pins = if self.pinned { self.pins() } else { Vec::new() };
            let more = pins.pop().unwrap_or_else(|| self.condition(1));
            on = Expr::of(Type::Bool, "{} AND {}", vec![on.into(), more.into()]);
        }
        let mut from = From::Join {
            kind,
            left: Box::new(left),
            right: Box::new(right),
            on: On::Condition(on),
        };
        for _ in 0..more {
            from = self.join(from);
        }
        from
    }

    fn join_kind(&mut self) -> &'static str {
        self.chance.weighted(&[
            (5, "JOIN"),
            (6, "LEFT JOIN"),
            (3, "RIGHT JOIN"),
            (3, "FULL JOIN"),
        ])
    }

    fn join(&mut self, left: From) -> From {
        let (left, kind) = (Box::new(left), self.join_kind());
        let lateral = matches!(kind, "JOIN" | "LEFT JOIN");
        if self.chance.percent(7) {
            let (right, atoms) = self.relation(true);
            self.see(atoms);
            let (kind, right, on) = ("CROSS JOIN", Box::new(right), On::Nothing);
            return From::Join {
                kind,
                left,
                right,
                on,
            };
        }
        if self.chance.percent(5) {
            let (right, atoms) = self.table();
            self.see(atoms);
            let kind =
                *self
                    .chance
                    .pick(&["NATURAL JOIN", "NATURAL LEFT JOIN", "NATURAL FULL JOIN"]);
            let (right, on) = (Box::new(right), On::Nothing);
            return From::Join {
                kind,
                left,
                right,
                on,
            };
        }
        let before = self.scopes.last().map_or(0, |scope| scope.atoms.len());
        let (right, atoms) = self.relation(lateral);
        let right = Box::new(right);
        if let (true, Some(column)) = (self.chance.percent(12), self.common(&atoms)) {
            // The merged column can be had by its name alone, and by the sides' own.
            self.see(atoms);
            let on = On::Using(column);
            return From::Join {
                kind,
                left,
                right,
                on,
            };
        }
        self.see(atoms);
        let on = On::Condition(self.join_condition(before, kind == "FULL JOIN"));
        From::Join {
            kind,
            left,
            right,
            on,
        }
    }

    /// The name of a column that these have in common with what is seen, of the same type.
    fn common(&mut self, atoms: &[Atom]) -> Option<String> {
        let name = |atom: &Atom| Some(atom.expr.as_text()?.split_once('.')?.1.to_owned());
        let seen = &self.scopes.last()?.atoms;
        let both = |atom: &&Atom| {
            let same = |other: &&Atom| name(other) == name(atom) && other.expr.ty == atom.expr.ty;
            seen.iter().filter(same).count() == 1
        };
        let found: Vec<String> = atoms.iter().filter(both).filter_map(name).collect();
        (!found.is_empty()).then(|| self.chance.pick(&found).clone())
    }

    /// `before` atoms are the left side's.
    fn join_condition(&mut self, before: usize, only_equal: bool) -> Expr {
        let atoms = self
            .scopes
            .last()
            .map_or(Vec::new(), |scope| scope.atoms.clone());
        let (left, right) = atoms.split_at(before);
        let mut pairs: Vec<(usize, [Expr; 2])> = Vec::new();
        for a in left {
            for b in right {
                let integers = a.expr.ty.is_integer() && b.expr.ty.is_integer();
                if a.expr.ty == b.expr.ty || integers {
                    let weight = 1 + 6 * usize::from(a.key) + 6 * usize::from(b.key);
                    pairs.push((weight, [a.expr.clone(), b.expr.clone()]));
                }
            }
        }
        let indexed: Vec<(usize, usize)> = pairs
            .iter()
            .enumerate()
            .map(|(index, (weight, _))| (*weight, index))
            .collect();
        if indexed.is_empty() {
            let text = if only_equal { "(1 = 1)" } else { "true" };
            return Expr::text(Type::Bool, text);
        }
        let [a, b] = pairs[self.chance.weighted(&indexed)].1.clone();
        let operator = if only_equal {
            "="
        } else {
            self.chance
                .weighted(&[(14, "="), (1, "<"), (1, ">="), (1, "IS NOT DISTINCT FROM")])
        };
        let equal = Expr::of(
            Type::Bool,
            &format!("{{}} {operator} {{}}"),
            vec![a.into(), b.into()],
        );
        let roll = self.chance.below(10);
        if only_equal || roll < 6 {
            return equal;
        }
        let more = self.condition(1);
        let text = if roll == 9 { "({} OR {})" } else { "{} AND {}" };
        Expr::of(Type::Bool, text, vec![equal.into(), more.into()])
    }

    /// Anything that can stand in FROM, and its columns.
    fn relation(&mut self, lateral: bool) -> (From, Vec<Atom>) {
        let roll = self.chance.below(100);
        if roll < 8 && !self.named.is_empty() || roll < 40 && self.named.len() > 1 {
            let named = self.chance.pick(&self.named).clone();
            let alias = self.name("t");
            let atoms = visible(&alias, &named.columns);
            return (
                From::Table {
                    name: named.name,
                    alias,
                },
                atoms,
            );
        }
        match roll {
            40..58 if self.subqueries > 0 => self.derived_table(lateral),
            58..64 => self.values_rows(),
            64..68 => self.function_rows(lateral),
            68..74 if self.views => self.view(),
            _ => self.table(),
        }
    }

    fn derived_table(&mut self, lateral: bool) -> (From, Vec<Atom>) {
        self.subqueries -= 1;
        let lateral = lateral && self.chance.percent(45);
        let alias = self.name("d");
        // What is not LATERAL does not see its neighbours.
        let hidden = if lateral { None } else { self.scopes.pop() };
        let query = self.derived(None);
        self.scopes.extend(hidden);
        let atoms = visible(&alias, &columns(&query));
        let query = Box::new(query);
        (
            From::Derived {
                lateral,
                query,
                alias,
            },
            atoms,
        )
    }

    fn values_rows(&mut self) -> (From, Vec<Atom>) {
        let mut types = vec![
            *self
                .chance
                .pick(&[Type::Int8, Type::Text, Type::Date, Type::Int4]),
        ];
        types.extend(self.types(1));
        let alias = self.name("v");
        let query = self.values_query(&types);
        let names: Vec<(String, Type)> = columns(&query);
        let rows = Expr::of(Type::Bool, "{}", vec![query.into()]);
        let atoms = visible(&alias, &names);
        (From::Rows(rows, alias), atoms)
    }

    fn function_rows(&mut self, lateral: bool) -> (From, Vec<Atom>) {
        let alias = self.name("f");
        let hidden = if lateral { None } else { self.scopes.pop() };
        let (ty, rows) = if self.chance.percent(50) {
            let last = self.chance.between(1, 6);
            (
                Type::Int4,
                Expr::text(Type::Int4, format!("generate_series(1, {last})")),
            )
        } else {
            let array = self.leaf(Type::TextArray);
            (
                Type::Text,
                Expr::of(Type::Text, "unnest({})", vec![array.into()]),
            )
        };
        self.scopes.extend(hidden);
        let atoms = visible(&alias, &[("x".to_owned(), ty)]);
        (From::Rows(rows, format!("{alias}(x)")), atoms)
    }

    fn view(&mut self) -> (From, Vec<Atom>) {
        let (name, columns) = self.chance.pick(&VIEW_COLUMNS);
        let columns: Vec<(String, Type)> = columns
            .iter()
            .map(|(name, ty)| ((*name).to_owned(), *ty))
            .collect();
        let alias = self.name("t");
        let atoms = visible(&alias, &columns);
        let name = (*name).to_owned();
        (From::Table { name, alias }, atoms)
    }

    /// A table.
    pub(super) fn table(&mut self) -> (From, Vec<Atom>) {
        let heavier = |table: &Table| {
            if matches!(table.name, "person" | "purchase") {
                4
            } else {
                2
            }
        };
        let tables: Vec<(usize, &str)> = TABLES
            .iter()
            .map(|table| (heavier(table), table.name))
            .collect();
        let name = self.chance.weighted(&tables);
        self.named_table(name)
    }

    pub(super) fn named_table(&mut self, name: &str) -> (From, Vec<Atom>) {
        let table = TABLES
            .iter()
            .find(|table| table.name == name)
            .expect("it is one of the tables");
        let alias = self.name("t");
        // Names that hide where a column comes from.
        let renamed = if self.chance.percent(5) {
            self.chance.between(1, 2)
        } else {
            0
        };
        let new_names = ["k", "id"];
        let column_name = |index: usize, name: &'static str| {
            if index < renamed {
                new_names[index]
            } else {
                name
            }
        };
        let atoms = table
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| Atom {
                expr: Expr::text(
                    column.ty,
                    format!("{alias}.{}", column_name(index, column.name)),
                ),
                column: true,
                key: column.name == table.key,
                id: column.name == "id",
            })
            .collect();
        let name = match self.chance.below(400) {
            0 => format!("public.{name}"),
            1 => format!("ONLY {name}"),
            2 => format!("\"{name}\" AS"),
            _ => name.to_owned(),
        };
        let alias = match (renamed, self.chance.below(60)) {
            (0, 0) => format!("{alias} TABLESAMPLE SYSTEM (100)"),
            (0, _) => alias,
            (count, _) => format!("{alias} ({})", new_names[..count].join(", ")),
        };
        (From::Table { name, alias }, atoms)
    }

    /// The names of this level's tables, each of which stands for a whole row.
    pub(super) fn rows(&self) -> Vec<String> {
        let atoms = self
            .scopes
            .last()
            .map_or(&[][..], |scope| scope.atoms.as_slice());
        let ids = atoms
            .iter()
            .filter(|atom| atom.id)
            .filter_map(|atom| atom.expr.as_text());
        ids.filter_map(|text| text.split_once('.').map(|(alias, _)| alias.to_owned()))
            .collect()
    }
}

/// The place of a column among those of its table.
pub(super) fn position(table: &str, column: &str) -> usize {
    let table = TABLES.iter().find(|known| known.name == table);
    let columns = table.map_or(&[][..], |table| table.columns);
    let place = columns.iter().position(|known| known.name == column);
    place.expect("the pairs are columns of the tables")
}

/// The columns of a relation that is no table.
fn visible(alias: &str, columns: &[(String, Type)]) -> Vec<Atom> {
    let atom = |(name, ty): &(String, Type)| Atom {
        expr: Expr::text(*ty, format!("{alias}.{name}")),
        column: true,
        key: false,
        id: false,
    };
    columns.iter().map(atom).collect()
}
