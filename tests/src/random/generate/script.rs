//! Scripts: writes one after the other, inside and outside of transaction blocks, with savepoints.

use super::{Atom, Generator, Scope};
use crate::random::chance::Chance;
use crate::random::print::Text;
use crate::random::query::{Expr, Part};
use crate::random::schema::{Column, Method, TABLES, Table};
use crate::random::types::Type;

/// One statement of a script.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is sent.
    pub text: Text,
    /// The table it writes, if it does.
    pub table: Option<&'static str>,
}

/// Rows of these numbers are new.
const NEW: usize = 1_000;

/// A script of a seed, by its number.
pub fn script(seed: u64, number: u64) -> Vec<Step> {
    let mut writer = Writer {
        generator: Generator {
            chance: Chance::of(seed, number.wrapping_add(7_000_000)),
            scopes: Vec::new(),
            named: Vec::new(),
            names: 0,
            subqueries: 0,
            pinned: false,
            bare: 0,
            views: false,
        },
        inserted: 0,
    };
    writer.script()
}

struct Writer {
    generator: Generator,
    /// How many rows have been made.
    inserted: usize,
}

impl Writer {
    fn script(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let block = self.chance().percent(70);
        if block {
            steps.push(control("BEGIN"));
        }
        let mut savepoints = 0;
        for _ in 0..self.chance().between(1, 6) {
            if block && self.chance().percent(25) {
                steps.push(self.savepoint(&mut savepoints));
            }
            let step = self.write();
            steps.push(step);
        }
        if block {
            let end = self.chance().weighted(&[(3, "COMMIT"), (1, "ROLLBACK")]);
            steps.push(control(end));
        }
        steps
    }

    fn chance(&mut self) -> &mut Chance {
        &mut self.generator.chance
    }

    fn savepoint(&mut self, savepoints: &mut usize) -> Step {
        let known = *savepoints;
        if known > 0 && self.chance().percent(60) {
            let back = self.chance().between(1, known);
            let word = self
                .chance()
                .weighted(&[(3, "ROLLBACK TO"), (1, "RELEASE")]);
            // Those made after it are gone, and a released one itself.
            *savepoints = if word == "RELEASE" { back - 1 } else { back };
            return control(&format!("{word} s{back}"));
        }
        *savepoints += 1;
        control(&format!("SAVEPOINT s{savepoints}"))
    }

    fn write(&mut self) -> Step {
        let weight = |table: &Table| match table.method {
            Method::Reference | Method::Unsharded => 1,
            Method::Hash | Method::Modulo | Method::Range | Method::List => 3,
        };
        let tables: Vec<(usize, &'static Table)> =
            TABLES.iter().map(|table| (weight(table), table)).collect();
        let table = self.chance().weighted(&tables);
        let statement = match self.chance().below(16) {
            0..2 => self.insert(table),
            2 => self.insert_query(table),
            3..8 => self.update(table),
            8..10 => self.delete(table),
            10..12 => self.common(table),
            12 => self.some_of(table),
            13 | 14 => self.by_groups(table),
            _ => self.merge(table),
        };
        Step {
            text: Text::of_expr(&statement),
            table: Some(table.name),
        }
    }

    fn insert(&mut self, table: &'static Table) -> Expr {
        self.insert_returning(table, None)
    }

    /// The table, or the view through which its rows are written.
    fn target(&mut self, table: &'static Table) -> String {
        match self.chance().percent(15) {
            true => table.seen(),
            false => table.name.to_owned(),
        }
    }

    fn insert_returning(&mut self, table: &'static Table, returned: Option<&str>) -> Expr {
        let count = self.chance().weighted(&[(3, 1), (3, 2), (2, 5)]);
        let mut parts = Vec::new();
        let mut rows = Vec::new();
        for _ in 0..count {
            self.inserted += 1;
            let mut row = Vec::new();
            for column in table.columns {
                if column.name == "id" {
                    row.push((NEW + self.inserted).to_string());
                } else {
                    row.push("{}".to_owned());
                    parts.push(self.generator.constant(column.ty).into());
                }
            }
            rows.push(format!("({})", row.join(", ")));
        }
        let returning = match returned {
            Some(returned) => format!(" RETURNING {returned}"),
            None => self
                .chance()
                .weighted(&[(2, ""), (1, " RETURNING *")])
                .to_owned(),
        };
        let text = format!(
            "INSERT INTO {} VALUES {}{returning}",
            self.target(table),
            rows.join(", ")
        );
        Expr::of(Type::Bool, &text, parts)
    }

    /// Rows made of those of a table, on their shard or on another.
    fn insert_query(&mut self, table: &'static Table) -> Expr {
        let source = match self.chance().percent(50) {
            true => table,
            false => *self.chance().pick(&TABLES.iter().collect::<Vec<_>>()),
        };
        let stays = source.name == table.name && self.chance().percent(50);
        // Rows that are there already, each once.
        let again = source.name == table.name && table.key == "id" && self.chance().percent(40);
        let alias = self.see(source);
        self.inserted += 1;
        let first = 10 * NEW * self.inserted;
        let mut parts: Vec<Part> = Vec::new();
        let mut columns = Vec::new();
        for column in table.columns {
            if column.name == "id" && again {
                columns.push(format!("{alias}.id + {}", first * (self.inserted % 2)));
            } else if column.name == "id" {
                columns.push(format!("{first} + {alias}.id"));
            } else if stays && column.name == table.key {
                columns.push(format!("{alias}.{}", column.name));
            } else {
                columns.push("{}".to_owned());
                let depth = self.chance().below(2);
                parts.push(self.generator.expr(column.ty, depth).into());
            }
        }
        let mut rest = String::new();
        if self.chance().percent(70) {
            parts.push(self.generator.filter().into());
            rest.push_str(" WHERE {}");
        }
        if again {
            let column = table.columns.last().map_or("id", |column| column.name);
            rest.push_str(&format!(
                " ON CONFLICT (id) DO UPDATE SET {column} = excluded.{column}"
            ));
        }
        let returning = [(3, ""), (1, " RETURNING *"), (1, " RETURNING id")];
        rest.push_str(self.chance().weighted(&returning));
        self.generator.scopes.pop();
        let text = format!(
            "INSERT INTO {} SELECT {} FROM {} AS {alias}{rest}",
            self.target(table),
            columns.join(", "),
            source.name
        );
        Expr::of(Type::Bool, &text, parts)
    }

    /// A common table expression that writes, and what is made of what it returns.
    fn common(&mut self, table: &'static Table) -> Expr {
        if self.chance().percent(30) {
            return self.inserted(table);
        }
        let write = match self.chance().percent(50) {
            true => self.update_returning(table, Some("*")),
            false => self.delete_returning(table, Some("*")),
        };
        let name = self.generator.name("w");
        let main = match self.chance().below(4) {
            0 => format!("SELECT {name}.id FROM {name}"),
            1 => format!("SELECT * FROM {name} WHERE {name}.id % 2 = 0"),
            2 => format!(
                "SELECT t.*, {name}.id FROM {name} JOIN {} t ON t.{key} = {name}.{key}",
                table.name,
                key = table.key
            ),
            _ => {
                self.inserted += 1;
                let first = 10 * NEW * self.inserted;
                let value = |column: &Column| match column.name {
                    "id" => format!("{first} + {name}.id"),
                    column => format!("{name}.{column}"),
                };
                let values: Vec<String> = table.columns.iter().map(value).collect();
                format!(
                    "INSERT INTO {} SELECT {} FROM {name}",
                    table.name,
                    values.join(", ")
                )
            }
        };
        let text = format!("WITH {name} AS ({{}}) {main}");
        Expr::of(Type::Bool, &text, vec![write.into()])
    }

    /// Any table, and how its columns are referred to; its rows restricted or not.
    fn source(&mut self, parts: &mut Vec<Part>) -> (&'static Table, String, &'static str) {
        let source = *self.chance().pick(&TABLES.iter().collect::<Vec<_>>());
        let alias = self.see(source);
        let filtered = self.chance().percent(60);
        if filtered {
            parts.push(self.generator.filter().into());
        }
        self.generator.scopes.pop();
        (source, alias, if filtered { " WHERE {}" } else { "" })
    }

    /// A write of the rows of some numbers, which another query finds: a queue's next.
    fn some_of(&mut self, table: &'static Table) -> Expr {
        let mut parts = Vec::new();
        let (source, alias, rest) = self.source(&mut parts);
        let count = self.chance().between(1, 6);
        let lock =
            self.chance()
                .weighted(&[(3, ""), (1, " FOR UPDATE"), (1, " FOR SHARE SKIP LOCKED")]);
        let order = self.chance().weighted(&[(1, ""), (1, " DESC")]);
        let found = format!(
            "SELECT {alias}.id FROM {} {alias}{rest} ORDER BY {alias}.id{order} LIMIT {count}{lock}",
            source.name
        );
        let column = table.columns.last().map_or("id", |column| column.name);
        let (table, name) = (table.name, self.generator.name("q"));
        let text = match self.chance().below(4) {
            0 => format!("DELETE FROM {table} WHERE id IN ({found}) RETURNING *"),
            1 => format!(
                "WITH {name} AS ({found}) DELETE FROM {table} USING {name} WHERE {name}.id = {table}.id"
            ),
            2 => format!("UPDATE {table} SET {column} = NULL WHERE id = ANY ({found})"),
            _ => format!(
                "UPDATE {table} SET {column} = NULL WHERE id > (SELECT max(id) FROM ({found}) AS {name}) RETURNING id"
            ),
        };
        Expr::of(Type::Bool, &text, parts)
    }

    /// An UPDATE by what another query makes of groups, each of which is one row.
    fn by_groups(&mut self, table: &'static Table) -> Expr {
        let mut parts = Vec::new();
        let (source, alias, rest) = self.source(&mut parts);
        let whole = |column: &&Column| {
            let whole = matches!(column.ty, Type::Int4 | Type::Int8 | Type::Numeric);
            whole && column.name != "id" && column.name != table.key
        };
        let columns: Vec<&Column> = table.columns.iter().filter(whole).collect();
        if columns.is_empty() {
            return self.delete(table);
        }
        let column = *self.chance().pick(&columns);
        let groups = self.chance().between(2, 7);
        let what = self.chance().weighted(&[
            (2, "count(*)"),
            (1, "max(length(ID::text))"),
            (1, "min(ID) % 100"),
        ]);
        let what = what.replace("ID", &format!("{alias}.id"));
        let query = format!(
            "SELECT {alias}.id % {groups} AS k, ({what})::{} AS v FROM {} {alias}{rest} GROUP BY 1",
            column.declared, source.name
        );
        let (table, name) = (table.name, self.generator.name("g"));
        let set = format!("SET {} = {name}.v", column.name);
        let ties = format!("WHERE {name}.k = {table}.id % {groups}");
        let text = match self.chance().below(3) {
            0 => format!(
                "UPDATE {table} {set} FROM ({query}) AS {name} {ties} RETURNING {table}.id, {name}.k"
            ),
            1 => format!("WITH {name} AS ({query}) UPDATE {table} {set} FROM {name} {ties}"),
            _ => format!(
                "UPDATE {table} SET {} = (SELECT {name}.v FROM ({query}) AS {name} ORDER BY {name}.k LIMIT 1)",
                column.name
            ),
        };
        Expr::of(Type::Bool, &text, parts)
    }

    /// A MERGE of rows that are there, and of new ones.
    fn merge(&mut self, table: &'static Table) -> Expr {
        if table.key != "id" {
            return self.by_groups(table);
        }
        let mut parts = Vec::new();
        let (source, alias, rest) = self.source(&mut parts);
        let key = table
            .columns
            .first()
            .map_or("int8", |column| column.declared);
        self.inserted += 1;
        let new = 10 * NEW * self.inserted;
        let first = self.chance().weighted(&[(2, 0), (2, 7), (1, new)]);
        let query = format!(
            "SELECT ({alias}.id + {first})::{key} AS k, {alias}.id % 3 AS third FROM {} {alias}{rest}",
            source.name
        );
        let name = self.generator.name("m");
        let column = table.columns.last().map_or("id", |column| column.name);
        let matched = self.chance().weighted(&[
            (2, "WHEN MATCHED THEN UPDATE SET COLUMN = NULL"),
            (1, "WHEN MATCHED THEN DELETE"),
            (1, "WHEN MATCHED AND NAME.third = 1 THEN DELETE"),
            (1, ""),
        ]);
        let new = self.chance().weighted(&[
            (3, "WHEN NOT MATCHED THEN INSERT (id) VALUES (NAME.k)"),
            (
                1,
                "WHEN NOT MATCHED AND NAME.third > 0 THEN INSERT (id) VALUES (NAME.k)",
            ),
            (1, "WHEN NOT MATCHED THEN DO NOTHING"),
        ]);
        let clauses = format!("{matched} {new}").replace("COLUMN", column);
        let clauses = clauses.replace("NAME", &name);
        let table = table.name;
        let text = match self.chance().percent(50) {
            true => format!(
                "MERGE INTO {table} t USING ({query}) AS {name} ON t.id = {name}.k {clauses}"
            ),
            false => format!(
                "WITH {name} AS ({query}) MERGE INTO {table} t USING {name} ON {name}.k = t.id {clauses}"
            ),
        };
        Expr::of(Type::Bool, &text, parts)
    }

    /// New rows, or those that a queue gives, and what is made of their numbers.
    fn inserted(&mut self, table: &'static Table) -> Expr {
        let name = self.generator.name("i");
        let (write, parts) = match self.chance().percent(60) {
            true => (
                "{}".to_owned(),
                vec![self.insert_returning(table, Some("id")).into()],
            ),
            false => {
                let mut parts = Vec::new();
                let (source, alias, rest) = self.source(&mut parts);
                let (table, source) = (table.name, source.name);
                let found =
                    format!("SELECT {alias}.id FROM {source} {alias}{rest} ORDER BY 1 LIMIT 3");
                (
                    format!("DELETE FROM {table} WHERE id IN ({found}) RETURNING id"),
                    parts,
                )
            }
        };
        self.inserted += 1;
        let first = 10 * NEW * self.inserted;
        let main = match self.chance().below(3) {
            0 => format!("SELECT count(*), max({name}.id) FROM {name}"),
            1 => format!("SELECT {name}.id + 1 FROM {name} ORDER BY 1 DESC LIMIT 3"),
            _ => format!(
                "INSERT INTO account (id) SELECT {first} + {name}.id FROM {name} RETURNING id"
            ),
        };
        let text = format!("WITH {name} AS ({write}) {main}");
        Expr::of(Type::Bool, &text, parts)
    }

    fn update(&mut self, table: &'static Table) -> Expr {
        self.update_returning(table, None)
    }

    fn update_returning(&mut self, table: &'static Table, returned: Option<&str>) -> Expr {
        let alias = self.see(table);
        let free = |column: &&Column| column.name != "id" && column.name != table.key;
        let columns: Vec<&Column> = table.columns.iter().filter(free).collect();
        let mut parts: Vec<Part> = Vec::new();
        let mut sets: Vec<String> = Vec::new();
        for _ in 0..self.chance().between(1, 2) {
            let column = *self.chance().pick(&columns);
            let set = format!("{} = {{}}", column.name);
            if sets.contains(&set) {
                continue;
            }
            sets.push(set);
            self.generator.subqueries = usize::from(self.chance().percent(15));
            let depth = self.chance().below(3);
            parts.push(self.generator.expr(column.ty, depth).into());
        }
        let target = self.target(table);
        // A view does not say where a row lies that would have to move.
        if returned.is_none() && target == table.name && self.chance().percent(25) {
            sets.extend(self.other_key(table, &alias, &mut parts));
        }
        let rest = self.which(table, &alias, &mut parts, returned);
        let text = format!("UPDATE {target} {alias} SET {}{rest}", sets.join(", "));
        self.generator.scopes.pop();
        Expr::of(Type::Bool, &text, parts)
    }

    /// Another shard key for the rows.
    fn other_key(
        &mut self,
        table: &'static Table,
        alias: &str,
        parts: &mut Vec<Part>,
    ) -> Option<String> {
        let key = table
            .columns
            .iter()
            .find(|column| column.name == table.key)?;
        if key.name == "id" {
            self.inserted += 1;
            return Some(format!(
                "id = {alias}.id + {}",
                10 * NEW * self.inserted + 1
            ));
        }
        let depth = self.chance().below(2);
        let value = match self.chance().percent(30) {
            true => self.generator.constant(key.ty),
            false => self.generator.expr(key.ty, depth),
        };
        parts.push(value.into());
        Some(format!("{} = {{}}", key.name))
    }

    fn delete(&mut self, table: &'static Table) -> Expr {
        self.delete_returning(table, None)
    }

    fn delete_returning(&mut self, table: &'static Table, returned: Option<&str>) -> Expr {
        let alias = self.see(table);
        let mut parts = Vec::new();
        let rest = self.which(table, &alias, &mut parts, returned);
        self.generator.scopes.pop();
        let text = format!("DELETE FROM {} {alias}{rest}", self.target(table));
        Expr::of(Type::Bool, &text, parts)
    }

    /// Lets a table's columns be referred to: its alias.
    fn see(&mut self, table: &'static Table) -> String {
        let alias = self.generator.name("t");
        let atom = |column: &Column| Atom {
            expr: Expr::text(column.ty, format!("{alias}.{}", column.name)),
            column: true,
            key: column.name == table.key,
            id: column.name == "id",
        };
        let atoms = table.columns.iter().map(atom).collect();
        self.generator.scopes.push(Scope::default());
        self.generator.see(atoms);
        alias
    }

    /// What follows: which rows, and what is returned of them, this or anything.
    fn which(
        &mut self,
        table: &'static Table,
        alias: &str,
        parts: &mut Vec<Part>,
        returned: Option<&str>,
    ) -> String {
        let mut text = String::new();
        if self.chance().percent(85) {
            self.generator.pinned = self.chance().percent(20);
            self.generator.subqueries = usize::from(self.chance().percent(30));
            parts.push(self.generator.filter().into());
            text.push_str(" WHERE {}");
        }
        if let Some(returned) = returned {
            text.push_str(&format!(" RETURNING {returned}"));
            return text;
        }
        match self.chance().below(6) {
            0 => text.push_str(" RETURNING *"),
            1 => {
                let column = self.chance().pick(table.columns).name;
                text.push_str(&format!(" RETURNING {alias}.id, {alias}.{column}"));
            }
            _ => {}
        }
        text
    }
}

fn control(sql: &str) -> Step {
    Step {
        text: Text {
            sql: sql.to_owned(),
            values: Vec::new(),
        },
        table: None,
    }
}
