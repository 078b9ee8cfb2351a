//! Conditions, with a liking for shard keys, NULLs and subqueries.

use super::Generator;
use crate::random::data::literal;
use crate::random::query::{Expr, Part};
use crate::random::types::Type;
use crate::random::types::Type::{
    Bool, Char, Date, Decimal, Float8, Int2, Int4, Int8, IntArray, IntRange, Jsonb, Text,
    TextArray, Timestamptz, Uuid,
};

/// Conditions on values of types.
const TESTS: &[(&str, &[Type])] = &[
    ("{} LIKE 'a%'", &[Text]),
    ("{} ILIKE '%B%'", &[Text]),
    ("{} ~ '^[a-c]'", &[Text]),
    ("{} @> {}", &[IntArray, IntArray]),
    ("{} && {}", &[TextArray, TextArray]),
    ("{} = ANY ({})", &[Int4, IntArray]),
    ("{} <> ALL ({})", &[Text, TextArray]),
    ("{} @> '{\"n\": 1}'", &[Jsonb]),
    ("{} ? 'k'", &[Jsonb]),
    ("{} @> {}", &[IntRange, Int4]),
    ("{} && {}", &[IntRange, IntRange]),
    ("{} BETWEEN {} AND {}", &[Int4, Int4, Int4]),
    ("{} BETWEEN SYMMETRIC {} AND {}", &[Date, Date, Date]),
    ("({}, {}) < ({}, {})", &[Int4, Text, Int4, Text]),
    ("({}, {}) = ({}, {})", &[Int8, Text, Int8, Text]),
    (
        "({}, {}) IS DISTINCT FROM ({}, {})",
        &[Int8, Date, Int8, Date],
    ),
    ("ROW({}, {}) IS NOT NULL", &[Int4, Text]),
    ("{} IS TRUE", &[Bool]),
    ("{} IS NOT FALSE", &[Bool]),
    ("{} IS UNKNOWN", &[Bool]),
    ("{} = {}", &[Char, Text]),
    ("{} = {}", &[Int8, Decimal]),
    ("{} = {}", &[Int8, Float8]),
    ("{} = {}", &[Int2, Int8]),
    ("now() > {}", &[Timestamptz]),
    ("current_date > {}", &[Date]),
    ("(random() < 0 OR {} = {})", &[Int4, Int4]),
    ("({}, {}) OVERLAPS ({}, {})", &[Date, Date, Date, Date]),
];

/// A key compared with a constant, in ways that mean the same, nearly the same, or something else.
const KEY_TESTS: &[&str] = &[
    "{} = {}",
    "{} = {}",
    "{} = {}",
    "{} = {}",
    "{} IN ({}, {})",
    "{} IN ({}, {}, NULL)",
    "{} NOT IN ({}, {})",
    "{} <> {}",
    "{} > {}",
    "{} >= {}",
    "{} BETWEEN {} AND {}",
    "{} = {} OR {} IS NULL",
    "({} = {} OR {} = {})",
    "{} = ANY (ARRAY[{}, {}])",
    "{} IS NOT DISTINCT FROM {}",
    "NOT ({} = {})",
    "{} IS NULL",
    "{} IS NOT NULL",
    "{} = NULL",
    "NULL = {}",
];

impl Generator {
    /// What stands after WHERE.
    pub(super) fn filter(&mut self) -> Expr {
        let mut parts: Vec<Part> = Vec::new();
        if self.scopes.len() > 1
            && self.chance.percent(60)
            && let Some(correlation) = self.correlation()
        {
            parts.push(correlation.into());
        }
        if self.pinned {
            parts.extend(self.pins().into_iter().map(Part::from));
        } else if self.chance.percent(35) {
            parts.push(self.key_test().into());
        }
        if parts.is_empty() || self.chance.percent(40) {
            parts.push(self.condition(2).into());
        }
        let text = vec!["({})"; parts.len()].join(" AND ");
        if let [Part::Expr(only)] = &parts[..] {
            return only.clone();
        }
        Expr::of(Bool, &text, parts)
    }

    /// Restrictions of this level's shard keys to values that are the same in all of the statement.
    pub(super) fn pins(&mut self) -> Vec<Expr> {
        let atoms = self
            .scopes
            .last()
            .map_or(&[][..], |scope| scope.atoms.as_slice());
        let keys: Vec<Expr> = atoms
            .iter()
            .filter(|atom| atom.key)
            .map(|atom| atom.expr.clone())
            .collect();
        let mut pins = Vec::new();
        for key in keys {
            let value = match key.ty {
                ty if ty.is_integer() => "5",
                ty => ty.values()[1],
            };
            let constant = match self.chance.below(4) {
                0 => Part::Value(Some(value.to_owned()), key.ty.cast()),
                1 => Part::Value(Some(value.to_owned()), ""),
                2 => Part::Text(literal(key.ty, value)),
                _ => Part::Text(format!("'{}'", value.replace('\'', "''"))),
            };
            let text = match self.chance.below(16) {
                0 => "{} IN ({})",
                1 => "{} = ANY (ARRAY[{}])",
                // The exception that may ruin it.
                2 => "({} = {} OR 1 = 2)",
                _ => "{} = {}",
            };
            if self.chance.percent(92) {
                pins.push(Expr::of(Bool, text, vec![key.into(), constant]));
            }
        }
        pins
    }

    /// A column of this level that equals one of a level outside.
    fn correlation(&mut self) -> Option<Expr> {
        let (own, outside) = self.scopes.split_last()?;
        let mut pairs: Vec<(usize, [Expr; 2])> = Vec::new();
        for inner in &own.atoms {
            for outer in outside
                .iter()
                .flat_map(|scope| &scope.atoms)
                .filter(|atom| atom.column)
            {
                let integers = inner.expr.ty.is_integer() && outer.expr.ty.is_integer();
                if integers || inner.expr.ty == outer.expr.ty {
                    let weight = 1 + 8 * usize::from(inner.key) + 8 * usize::from(outer.key);
                    pairs.push((weight, [inner.expr.clone(), outer.expr.clone()]));
                }
            }
        }
        let indexed: Vec<(usize, usize)> = pairs
            .iter()
            .enumerate()
            .map(|(index, (weight, _))| (*weight, index))
            .collect();
        if indexed.is_empty() {
            return None;
        }
        let [inner, outer] = pairs[self.chance.weighted(&indexed)].1.clone();
        let operator = self.chance.weighted(&[(8, "="), (1, "<"), (1, "<>")]);
        Some(Expr::of(
            Bool,
            &format!("{{}} {operator} {{}}"),
            vec![inner.into(), outer.into()],
        ))
    }

    /// A condition, so deep.
    pub(super) fn condition(&mut self, depth: usize) -> Expr {
        let subqueries = self.bare == 0 && self.subqueries > 0;
        match self.chance.below(100) {
            0..14 => self.key_test(),
            14..24 if depth > 0 => self.both(depth, "({} AND {})"),
            24..34 if depth > 0 => self.both(depth, "({} OR {})"),
            34..38 if depth > 0 => {
                let inner = self.condition(depth - 1);
                Expr::of(Bool, "NOT ({})", vec![inner.into()])
            }
            38..40 => {
                let inner = self.key_test();
                let text = *self.chance.pick(&[
                    "({} OR 1 = 1)",
                    "(true OR {})",
                    "({} AND 1 = 2)",
                    "({} OR NULL)",
                ]);
                Expr::of(Bool, text, vec![inner.into()])
            }
            40..56 if subqueries => self.subquery_test(),
            56..66 => {
                let (text, types) = *self.chance.pick(TESTS);
                let parts = types
                    .iter()
                    .map(|ty| self.expr(*ty, depth.min(1)).into())
                    .collect();
                Expr::of(Bool, text, parts)
            }
            66..72 if self.chance.percent(15) && !self.rows().is_empty() => {
                let rows = self.rows();
                let row = self.chance.pick(&rows).clone();
                let text = *self
                    .chance
                    .pick(&["IS NULL", "IS NOT NULL", "IS DISTINCT FROM NULL"]);
                Expr::text(Bool, format!("{row} {text}"))
            }
            66..72 => {
                let ty = self.any_type();
                let text = *self.chance.pick(&["{} IS NULL", "{} IS NOT NULL"]);
                let expr = self.leaf(ty);
                Expr::of(Bool, text, vec![expr.into()])
            }
            72..78 => {
                let ty = self.any_type();
                let text = *self.chance.pick(&[
                    "{} IN ({}, {})",
                    "{} NOT IN ({}, {})",
                    "{} = ANY (ARRAY[{}, {}])",
                ]);
                let parts = vec![
                    self.leaf(ty).into(),
                    self.constant(ty).into(),
                    self.constant(ty).into(),
                ];
                Expr::of(Bool, text, parts)
            }
            78..81 => {
                let expr = self.leaf(Bool);
                Expr::of(Bool, "({})", vec![expr.into()])
            }
            _ => self.comparison(depth.min(1)),
        }
    }

    fn both(&mut self, depth: usize, text: &str) -> Expr {
        let parts = vec![
            self.condition(depth - 1).into(),
            self.condition(depth - 1).into(),
        ];
        Expr::of(Bool, text, parts)
    }

    /// The type of something at this level, or any.
    fn any_type(&mut self) -> Type {
        let types: Vec<Type> = self.scopes.last().map_or(Vec::new(), |scope| {
            scope.atoms.iter().map(|atom| atom.expr.ty).collect()
        });
        if types.is_empty() || self.chance.percent(10) {
            return *self.chance.pick(&Type::PLAIN);
        }
        *self.chance.pick(&types)
    }

    fn comparison(&mut self, depth: usize) -> Expr {
        let ty = self.any_type();
        let operator = self.chance.weighted(&[
            (6, "="),
            (2, "<>"),
            (2, "<"),
            (2, ">"),
            (1, "<="),
            (2, ">="),
            (1, "IS DISTINCT FROM"),
        ]);
        let left = self.leaf(ty);
        let right = self.other(&left, depth);
        Expr::of(
            Bool,
            &format!("{{}} {operator} {{}}"),
            vec![left.into(), right.into()],
        )
    }

    /// A shard key and constants; something else if there is no key.
    fn key_test(&mut self) -> Expr {
        let scope = self.scopes.last();
        let keys: Vec<Expr> = scope.map_or(Vec::new(), |scope| {
            scope
                .atoms
                .iter()
                .filter(|atom| atom.key)
                .map(|atom| atom.expr.clone())
                .collect()
        });
        if keys.is_empty() {
            return self.comparison(0);
        }
        let key = self.chance.pick(&keys).clone();
        let text = *self.chance.pick(KEY_TESTS);
        let twice = text.contains("OR");
        let parts = (0..text.matches("{}").count())
            .map(|index| match index {
                0 => key.clone().into(),
                2 if twice => key.clone().into(),
                _ if text.starts_with("NULL") => key.clone().into(),
                _ => self.key_constant(key.ty),
            })
            .collect();
        Expr::of(Bool, text, parts)
    }

    /// A constant for a key, in one of the ways to write it.
    fn key_constant(&mut self, ty: Type) -> Part {
        let value = *self.chance.pick(ty.values());
        let quoted = format!("'{}'", value.replace('\'', "''"));
        let casts: &[&str] = match ty {
            Int8 | Int4 | Int2 => &[
                "::int8",
                "::int4",
                "::int2",
                "::numeric",
                "::float8",
                ".0",
                ".5",
                "",
                "",
                "",
            ],
            Text => &["::text", "::varchar", "::char(5)", "", "", "::name"],
            Char => &["::char(5)", "::text", "::varchar", "", ""],
            Date => &["::date", "::timestamp", "::timestamptz", "", ""],
            Decimal => &["::numeric", "::float8", "::numeric(10,3)", "", ""],
            Uuid => &["::uuid", "", ""],
            _ => &[ty.cast()],
        };
        let cast = *self.chance.pick(casts);
        if self.bare == 0 && !cast.starts_with('.') && self.chance.percent(30) {
            return Part::Value(Some(value.to_owned()), cast);
        }
        let bare_number = ty.is_integer()
            && !value.starts_with('-')
            && (cast.is_empty() || cast.starts_with('.'));
        Part::Text(match cast {
            _ if bare_number => format!("{value}{cast}"),
            ".0" | ".5" => literal(ty, value),
            _ => format!("{quoted}{cast}"),
        })
    }

    /// EXISTS, IN, ANY, ALL.
    fn subquery_test(&mut self) -> Expr {
        self.subqueries -= 1;
        if self.chance.percent(30) {
            let query = self.query(None, false);
            let text = *self.chance.pick(&["EXISTS {}", "NOT EXISTS {}"]);
            return Expr::of(Bool, text, vec![query.into()]);
        }
        let ty = match self.any_type() {
            Decimal => Int8,
            ty => ty,
        };
        if self.chance.percent(10) {
            let query = self.query(Some(&[ty, Int8]), false);
            let parts = vec![self.leaf(ty).into(), self.leaf(Int8).into(), query.into()];
            let text = *self.chance.pick(&["({}, {}) IN {}", "({}, {}) NOT IN {}"]);
            return Expr::of(Bool, text, parts);
        }
        let text = *self.chance.pick(&[
            "{} IN {}",
            "{} IN {}",
            "{} NOT IN {}",
            "{} NOT IN {}",
            "{} = ANY {}",
            "{} > ALL {}",
            "{} <> ALL {}",
            "{} < ANY {}",
        ]);
        let left = self.leaf(ty);
        let query = self.query(Some(&[ty]), false);
        Expr::of(Bool, text, vec![left.into(), query.into()])
    }
}
