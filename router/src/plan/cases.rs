//! The planner's tests: files of statements with the expected plan beside each.
//!
//! In `cases/*.sql` a case is a statement (any number of lines; `--` lines before it are its comment) followed by its plan
//! as `explain` prints it, each line marked `--> `. The schema is `cases/schema.txt`. A line `-- shards: 1`, `-- temporary: a b`,
//! `-- search_path: a, b` or `-- layer: workspace` changes what follows. `UPDATE_CASES=1 cargo test` rewrites the plans; read the difference.

use std::fmt::Write;
use std::path::Path;

use super::explain::explain;
use super::{Context, Layer, NoParams, Operator, Plan, Values, plan};
use crate::relations::{Relations, SearchPath, fixture};
use crate::sql::{LiteralKind, Scan};

const SCHEMA: &str = include_str!("cases/schema.txt");

struct Setting {
    relations: Relations,
    search_path: SearchPath,
    temporary: Vec<String>,
    layer: Layer,
}

impl Setting {
    fn new() -> Self {
        Setting {
            relations: fixture::relations(2, SCHEMA),
            search_path: SearchPath::default(),
            temporary: Vec::new(),
            layer: Layer::Auto,
        }
    }

    fn read(&mut self, line: &str) {
        let Some((name, value)) = line.trim_start_matches("-- ").split_once(": ") else {
            return;
        };
        match name {
            "shards" => self.relations = fixture::relations(value.parse().unwrap(), SCHEMA),
            "temporary" => {
                self.temporary = value
                    .split_whitespace()
                    .filter(|name| *name != "none")
                    .map(str::to_owned)
                    .collect()
            }
            "layer" => {
                self.layer = match value {
                    "auto" => Layer::Auto,
                    "merge" => Layer::Merge,
                    "bind join" => Layer::BindJoin,
                    "workspace" => Layer::Workspace,
                    other => panic!("{other:?} is no layer"),
                }
            }
            "search_path" => self.search_path = SearchPath::parse(value, "alice").unwrap(),
            _ => {}
        }
    }

    fn plan(&self, sql: &str) -> (Plan, Scan) {
        let mut scan = Scan::new();
        let _ = scan.scan(sql.as_bytes());
        let context = Context {
            relations: &self.relations,
            search_path: &self.search_path,
            temporary: &self.temporary,
            layer: self.layer,
            given: &[],
            ahead: &[],
            in_trigger: false,
        };
        (plan(sql, &scan, &context), scan)
    }

    fn explain(&self, sql: &str) -> String {
        let (plan, scan) = self.plan(sql);
        let values = Values {
            sql: sql.as_bytes(),
            literals: &scan.literals,
            params: &NoParams,
        };
        let bound = plan.key_params.is_empty().then_some(&values);
        explain(&plan, &self.relations, sql.as_bytes(), bound)
    }
}

/// Calls `each` with every statement of a file and what was before it, and returns the file with plans as printed now.
fn walk(text: &str, mut each: impl FnMut(&Setting, &str)) -> String {
    let mut setting = Setting::new();
    let mut out = String::new();
    let mut statement = String::new();
    let mut finish = |setting: &Setting, statement: &mut String, out: &mut String| {
        let sql = statement.trim_end();
        if !sql.is_empty() {
            each(setting, sql);
            for line in setting.explain(sql).lines() {
                writeln!(out, "--> {line}").unwrap();
            }
        }
        statement.clear();
    };
    for line in text.lines() {
        if line.starts_with("--> ") {
            continue;
        }
        if line.trim().is_empty() {
            finish(&setting, &mut statement, &mut out);
            out.push('\n');
            continue;
        }
        if statement.is_empty() && line.starts_with("--") {
            setting.read(line);
        } else {
            statement.push_str(line);
            statement.push('\n');
        }
        out.push_str(line);
        out.push('\n');
    }
    finish(&setting, &mut statement, &mut out);
    out
}

fn files() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn every_plan_is_the_expected_one() {
    let mut wrong = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let now = walk(&text, |_, _| {});
        if now == text {
            continue;
        }
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&path, now).unwrap();
            continue;
        }
        let at = text
            .lines()
            .zip(now.lines())
            .position(|(a, b)| a != b)
            .unwrap_or_else(|| text.lines().count().min(now.lines().count()));
        let near: Vec<&str> = now.lines().skip(at.saturating_sub(6)).take(12).collect();
        wrong.push(format!(
            "{}:{}\n{}",
            path.display(),
            at + 1,
            near.join("\n")
        ));
    }
    assert!(
        wrong.is_empty(),
        "plans differ from:\n{}",
        wrong.join("\n\n")
    );
}

/// A plan is a function of the normalised text and the guards: other values of the other literals change nothing.
#[test]
fn plans_do_not_depend_on_literals_they_do_not_guard() {
    for path in files() {
        walk(&std::fs::read_to_string(&path).unwrap(), |setting, sql| {
            let (before, scan) = setting.plan(sql);
            let mut changed = sql.to_owned();
            for (slot, literal) in scan.literals.iter().enumerate().rev() {
                if !before.guards.contains(&u32::try_from(slot).unwrap()) {
                    let value = match literal.kind {
                        LiteralKind::Integer => "4711",
                        LiteralKind::Decimal => "47.11",
                        LiteralKind::String => "'it''s other'",
                    };
                    changed.replace_range(
                        literal.span.start as usize..literal.span.end as usize,
                        value,
                    );
                }
            }
            let (after, again) = setting.plan(&changed);
            if scan.normalized != again.normalized {
                // A statement whose literals are part of its text.
                return;
            }
            let same = explain(&before, &setting.relations, b"", None)
                == explain(&after, &setting.relations, b"", None);
            assert!(same, "{sql}\n{changed}");
            assert_eq!(before.access, after.access, "{sql}");
            assert_eq!(before.command, after.command, "{sql}");
        });
    }
}

/// Nothing opaque or refused is ever sent to more than one shard; an AppendAll never writes.
#[test]
fn only_reads_are_appended() {
    for path in files() {
        walk(&std::fs::read_to_string(&path).unwrap(), |setting, sql| {
            let (plan, _) = setting.plan(sql);
            if matches!(plan.operator, Operator::Append(_)) {
                assert!(plan.access < super::Access::Write, "{sql}");
                assert!(plan.effects.pins.is_empty() && !plan.effects.dirty, "{sql}");
            }
        });
    }
}

/// Statements with tokens missing, doubled and out of place are planned without a panic, and still read by no more than
/// one shard unless they are plain reads.
#[test]
fn mangled_statements_are_planned_too() {
    let mut statements = Vec::new();
    for path in files() {
        walk(&std::fs::read_to_string(&path).unwrap(), |_, sql| {
            statements.push(sql.to_owned())
        });
    }
    let setting = Setting::new();
    let pieces: Vec<Vec<String>> = statements.iter().filter_map(|sql| pieces(sql)).collect();
    // A small generator of its own: the same mangling on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..10_000 {
        let mut mangled = pieces[pick(pieces.len())].clone();
        for _ in 0..=pick(3) {
            let at = pick(mangled.len().max(1));
            match pick(4) {
                0 if at < mangled.len() => drop(mangled.remove(at)),
                1 if at < mangled.len() => mangled.insert(at, mangled[at].clone()),
                2 => mangled.truncate(at),
                _ => {
                    let other = &pieces[pick(pieces.len())];
                    mangled.insert(at.min(mangled.len()), other[pick(other.len())].clone());
                }
            }
        }
        let sql = mangled.join(" ");
        let (plan, scan) = setting.plan(&sql);
        let values = Values {
            sql: sql.as_bytes(),
            literals: &scan.literals,
            params: &NoParams,
        };
        explain(&plan, &setting.relations, sql.as_bytes(), Some(&values));
        if let Operator::Append(_) = plan.operator {
            assert!(plan.access < super::Access::Write, "{sql}");
        }
    }
}

/// The tokens of a statement.
fn pieces(sql: &str) -> Option<Vec<String>> {
    let end = u32::try_from(sql.len()).unwrap();
    let tokens = super::parse::tokens(sql.as_bytes(), 0..end).ok()?;
    let text = |token: &crate::sql::Token| sql[token.start as usize..token.end as usize].to_owned();
    let pieces: Vec<String> = tokens.iter().map(text).collect();
    (!pieces.is_empty()).then_some(pieces)
}

/// No statement is deep enough to exhaust the stack, nor complex enough to be planned for long.
#[test]
fn deep_and_long_statements_are_planned() {
    let thread = std::thread::Builder::new()
        .stack_size(super::STACK_BYTES)
        .spawn(|| {
            let setting = Setting::new();
            [40, 400, 20_000]
                .into_iter()
                .flat_map(deep_and_long)
                .for_each(|sql| drop(setting.plan(&sql)));
        });
    thread.unwrap().join().unwrap();
}

fn deep_and_long(times: usize) -> Vec<String> {
    let repeat = |piece: &str| piece.repeat(times);
    let around = |open: &str, inside: &str, close: &str| {
        format!("{}{inside}{}", repeat(open), repeat(close))
    };
    let ctes = |body: &dyn Fn(usize) -> String| {
        (1..=times)
            .map(|n| format!("c{n} AS ({})", body(n)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    vec![
        format!("SELECT {}", around("(", "1", ")")),
        format!("SELECT {}1 FROM users", repeat("- ")),
        format!("SELECT 1 FROM users WHERE {}true", repeat("NOT ")),
        format!("SELECT 1 FROM users WHERE id = 1{}", repeat(" OR id = 1")),
        format!("SELECT 1 FROM users WHERE id = 1{}", repeat(" AND id = 1")),
        format!("SELECT 1{}", repeat(" + 1")),
        format!("SELECT 1{}", repeat("::int")),
        format!("SELECT a{} FROM users", repeat(" IS NULL")),
        format!("SELECT 1{}", repeat(" UNION SELECT 1")),
        format!("SELECT {}", around("(SELECT ", "1", ")")),
        format!(
            "SELECT * FROM {}",
            around("(SELECT * FROM ", "users", ") x")
        ),
        format!("SELECT * FROM {}", around("(b JOIN ", "users", " ON true)")),
        format!(
            "SELECT * FROM users a{}",
            repeat(" JOIN users b ON a.id = b.id")
        ),
        format!("SELECT * FROM a{}", repeat(" NATURAL JOIN b")),
        format!("SELECT * FROM users WHERE id IN (1{})", repeat(", 1")),
        format!("INSERT INTO users VALUES (1){}", repeat(", (1)")),
        format!("SELECT {}", around("f(", "1", ")")),
        format!("SELECT {}", around("CASE WHEN a THEN ", "1", " END")),
        format!("SELECT {}", around("ARRAY[", "1", "]")),
        format!("SELECT a{}", repeat("[1]")),
        format!("SELECT 1 WHERE a{}", repeat(" LIKE a")),
        format!("WITH {} SELECT 1", ctes(&|_| "SELECT 1".to_owned())),
        // Each CTE is mentioned twice by the next: walked at each mention, the walk would double every time.
        format!(
            "WITH c0 AS (SELECT 1), {} SELECT * FROM c{times}",
            ctes(&|n| format!("SELECT * FROM c{0} a, c{0} b", n - 1))
        ),
    ]
}

/// Bytes that are not UTF-8 do not change how a statement is planned where they are not part of its key.
#[test]
fn bytes_of_any_encoding_may_be_in_literals_and_comments() {
    let setting = Setting::new();
    let planned = |sql: &[u8]| {
        let mut scan = Scan::new();
        scan.scan(sql).unwrap();
        let context = Context {
            relations: &setting.relations,
            search_path: &setting.search_path,
            temporary: &[],
            layer: Layer::Auto,
            given: &[],
            ahead: &[],
            in_trigger: false,
        };
        explain(&plan(sql, &scan, &context), &setting.relations, sql, None)
    };
    let plain = planned(b"SELECT * FROM users WHERE id = 5 AND name = 'x'");
    assert!(plain.starts_with("PassThrough"), "{plain}");
    assert_eq!(
        planned(b"SELECT * FROM users /* \xff */ WHERE id = 5 AND name = '\xe9\xff'"),
        plain
    );
    assert!(planned(b"SELECT * FROM users WHERE id = 5 AND name = E'\xff'").starts_with("Refuse"));
    assert!(planned(b"SELECT * FROM users WHERE id = 5 AND \xff = 'x'").starts_with("Refuse"));
}
