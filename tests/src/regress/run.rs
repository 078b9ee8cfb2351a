//! Runs a file on the plain server and on the router, and compares what they read.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::compare::{Verdict, What, compare, show};
use super::mirror::{Blocked, Mirror};
use super::report::{Difference, FileReport, Outcome};
use super::script::{Piece, Script, Statement, Variables};
use super::source::{Source, Use};
use super::stand::Stand;
use super::statement::{Kind, Token, permanent, tokens};
use super::write::FOLLOWS;
use crate::{Client, Reply};

/// The SQLSTATE of FETCH from a cursor that there is not.
const NO_SUCH_CURSOR: &str = "34000";

/// One file that is running: its sessions, and what it has said so far.
pub(super) struct Run<'a> {
    stand: &'a mut Stand,
    pub(super) mirror: &'a mut Mirror,
    pub(super) plain: Client,
    pub(super) routed: Client,
    /// Of the plain server whose rows lie in another order.
    reordered: Client,
    pub(super) usage: Use,
    pub(super) report: FileReport,
    variables: Variables,
    /// What they are where the router's answers are put into variables.
    routed_variables: Variables,
    /// Whether each prepared statement reads.
    prepared: BTreeMap<String, bool>,
    /// Settings that a new session of the router has to be given.
    settings: Vec<String>,
    /// Whether the plain server's rows may be others than the shards'.
    pub(super) rows_changed: bool,
    /// Whether the router has to look at the tables anew.
    defined: bool,
    /// Whether the open transaction block has defined anything.
    defined_in_block: bool,
    /// Whether it has dropped anything that the shards still have.
    dropped_in_block: bool,
    /// Whether it has set anything.
    set_in_block: bool,
    /// Why the router refused something in the open transaction block: its own block begins anew then, and what cursors it had is
    /// gone.
    undone: Option<String>,
    /// Why it refused a cursor that outlives its transaction.
    not_held: Option<String>,
    /// Whether the shards' rows are others than the plain server's, and are to stay so until its session may see every table.
    pub(super) strayed: bool,
    /// Where the plain server's log was last seen.
    position: String,
    /// Relations that the script called temporary.
    temporary: Vec<String>,
    /// Functions that show plans.
    explaining: BTreeSet<String>,
}

impl<'a> Run<'a> {
    /// Runs a whole file.
    pub(super) fn file(
        stand: &'a mut Stand,
        mirror: &'a mut Mirror,
        source: &Source,
        name: &str,
        usage: Use,
    ) -> FileReport {
        let text = source
            .script(name)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        mirror.reconnect();
        mirror.begin(usage == Use::Written);
        let mut run = Run {
            plain: stand.plain(),
            routed: stand.routed(),
            reordered: stand.reordered(),
            stand,
            mirror,
            usage,
            report: FileReport::new(name, usage == Use::Written),
            variables: Variables::new(),
            routed_variables: Variables::new(),
            prepared: BTreeMap::new(),
            settings: Vec::new(),
            rows_changed: true,
            defined: true,
            defined_in_block: false,
            dropped_in_block: false,
            set_in_block: false,
            undone: None,
            not_held: None,
            strayed: false,
            position: String::new(),
            temporary: Vec::new(),
            explaining: BTreeSet::new(),
        };
        run.environment(source);
        run.pieces(&mut Script::new(&text));
        run.finish()
    }

    fn environment(&mut self, source: &Source) {
        let directory = source.directory().to_string_lossy().into_owned();
        for (name, value) in [
            ("PG_ABS_SRCDIR", directory.as_str()),
            ("PG_ABS_BUILDDIR", "/nonexistent"),
            ("PG_LIBDIR", "/nonexistent"),
            ("PG_DLSUFFIX", ".so"),
        ] {
            self.set(name, value.to_owned());
        }
    }

    /// Sets one of psql's variables.
    fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value.clone());
        self.routed_variables.insert(name.to_owned(), value);
    }

    /// The next piece of the script, with the values that each side's variables have.
    fn piece(&self, script: &mut Script<'_>) -> Option<Piece> {
        let escapes = self.escapes_in_strings();
        let mut again = script.clone();
        let mut piece = script.next(&self.variables, escapes)?;
        if let Piece::Statement(statement) = &mut piece
            && self.variables != self.routed_variables
            && let Some(Piece::Statement(routed)) = again.next(&self.routed_variables, escapes)
        {
            statement.routed = Some(routed.text);
        }
        Some(piece)
    }

    fn pieces(&mut self, script: &mut Script<'_>) {
        // Of each \if around this: whether its branch is taken, and whether one has been.
        let mut branches: Vec<(bool, bool)> = Vec::new();
        while let Some(piece) = self.piece(script) {
            let active = branches.iter().all(|(taken, _)| *taken);
            match piece {
                Piece::Statement(statement) if active => self.statement(&statement, script),
                Piece::Statement(_) => {}
                Piece::Command { name, arguments } => match name.as_str() {
                    "if" | "elif" | "else" | "endif" => {
                        branch(&mut branches, &name, &self.words(&arguments))
                    }
                    "q" | "quit" if active => return,
                    _ if active => self.command(&name, &arguments),
                    _ => {}
                },
            }
        }
    }

    fn command(&mut self, name: &str, arguments: &str) {
        let words = self.words(arguments);
        match (name, words.as_slice()) {
            ("set", [variable, value @ ..]) => self.set(variable, value.concat()),
            ("unset", [variable]) => {
                self.variables.remove(variable);
                self.routed_variables.remove(variable);
            }
            ("getenv", [variable, name]) => {
                let value = self.variables.get(name).cloned().unwrap_or_default();
                self.set(variable, value);
            }
            ("c" | "connect", _) => {
                (self.plain, self.routed) = (self.stand.plain(), self.stand.routed());
                self.reordered = self.stand.reordered();
                self.mirror.reconnect();
                self.settings.clear();
            }
            // The rest is about psql's own output.
            _ => {}
        }
    }

    /// Whether a backslash means something in a plain string.
    fn escapes_in_strings(&self) -> bool {
        let standard = self.plain.parameters.get("standard_conforming_strings");
        standard.map(String::as_str) == Some("off")
    }

    /// A command's arguments, as psql reads them.
    fn words(&self, arguments: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut rest = arguments.trim_start();
        while let Some(first) = rest.chars().next() {
            let end = match first {
                '\'' => rest[1..].find('\'').map_or(rest.len(), |at| at + 2),
                _ => rest.find(char::is_whitespace).unwrap_or(rest.len()),
            };
            let word = &rest[..end];
            let known = word
                .strip_prefix(':')
                .and_then(|name| self.variables.get(name.trim_matches(['\'', '"'])));
            words.push(
                known
                    .cloned()
                    .unwrap_or_else(|| word.trim_matches('\'').to_owned()),
            );
            rest = rest[end..].trim_start();
        }
        words
    }

    fn statement(&mut self, statement: &Statement, script: &mut Script<'_>) {
        let sql = statement.text.as_str();
        match Kind::of(sql) {
            Kind::Query if self.shows_plan(sql) => {}
            Kind::Query => self.query(statement),
            Kind::Cursor => drop(self.both(statement)),
            Kind::Prepare(name, reads) => {
                self.prepared.insert(name, reads);
                // What makes a table of it runs on the shards too.
                self.mirror.try_repeat(sql);
                self.reordered.simple(sql);
                if reads || self.usage == Use::Written {
                    drop(self.both(statement))
                } else {
                    drop(self.plain.simple(sql))
                }
            }
            Kind::Execute(name) if self.prepared.get(&name) == Some(&true) => {
                drop(self.both(statement))
            }
            Kind::Execute(_) | Kind::Data => self.data(statement),
            Kind::Setting => self.setting(sql),
            Kind::Transaction => self.transaction(statement),
            Kind::CopyIn => self.copy_in(statement, script),
            Kind::Definition => self.definition(sql),
            Kind::CopyOut | Kind::Wait if self.usage == Use::Written => drop(self.both(statement)),
            Kind::Maintenance | Kind::Wait => drop(self.plain.simple(sql)),
            Kind::CopyOut | Kind::Aside => {}
        }
    }

    /// A query, and what psql does with its answer.
    fn query(&mut self, statement: &Statement) {
        let ended_by = statement
            .ended_by
            .as_ref()
            .map(|(name, arguments)| (name.as_str(), arguments));
        if let Some(("gdesc", _)) = ended_by {
            return;
        }
        let (replies, routed) = self.both(statement);
        match (ended_by, replies.first()) {
            (Some(("gset", prefix)), Some(reply)) => {
                self.variables.extend(values(prefix, reply));
                self.routed_variables.extend(values(prefix, reply));
                // The router's clients go on with what it has told them: numbers of transactions, say.
                let routed = routed.iter().flatten();
                let routed = routed.flat_map(|reply| values(prefix, reply));
                self.routed_variables.extend(routed);
            }
            (Some(("gexec", _)), Some(reply)) => {
                for text in reply.texts().into_iter().flatten() {
                    let made = Statement {
                        line: statement.line,
                        text,
                        routed: None,
                        ended_by: None,
                    };
                    self.statement(&made, &mut Script::new(""));
                }
            }
            _ => {}
        }
    }

    /// Whether it calls a function that shows plans: they are as little to be compared as EXPLAIN's own.
    fn shows_plan(&self, sql: &str) -> bool {
        let called = tokens(sql).into_iter().map(|token| token.text);
        called
            .into_iter()
            .any(|word| self.explaining.contains(&word))
    }

    fn setting(&mut self, sql: &str) {
        let changes_role = |token: Token| matches!(token.text.as_str(), "role" | "authorization");
        if self.usage == Use::Compared && tokens(sql).into_iter().any(changes_role) {
            // The next one may not see everything.
            self.bring_up_to_date();
        }
        let replies = self.plain.simple(sql);
        if succeeded(&replies) {
            self.mirror.try_repeat(sql);
            self.settings.push(sql.to_owned());
            self.set_in_block |= self.plain.status == b'T';
        }
        self.reordered.simple(sql);
        self.ask(sql);
        self.align();
    }

    fn transaction(&mut self, statement: &Statement) {
        let sql = statement.text.as_str();
        let in_block = self.plain.status != b'I';
        let expected = self.plain.simple(sql);
        self.reordered.simple(sql);
        let found = self.ask(sql);
        // A block that the router had to begin anew has none of the savepoints.
        if self.usage == Use::Written && self.undone.is_none() {
            self.note(statement, &expected, found.as_deref(), None);
        }
        self.align();
        if self.plain.status == b'I' {
            self.undone = None;
        }
        if sql.eq_ignore_ascii_case("close all") {
            self.not_held = None;
        }
        if !in_block {
            return;
        }
        self.rows_changed = true;
        if self.set_in_block && self.plain.status != b'E' {
            self.mirror.settle(&mut self.plain);
            self.set_in_block = self.plain.status == b'T';
        }
        if self.defined_in_block && self.plain.status != b'E' && self.sees_everything() {
            // What was rolled back, if anything.
            self.mirror.reconcile(&mut self.plain);
            self.defined = true;
            self.defined_in_block = self.plain.status == b'T';
            self.dropped_in_block = false;
        }
    }

    fn definition(&mut self, sql: &str) {
        let permanent = permanent(sql);
        let sql = permanent.as_deref().unwrap_or(sql);
        let words: Vec<String> = tokens(sql).into_iter().map(|token| token.text).collect();
        let looks_at_rows = words
            .iter()
            .any(|word| matches!(word.as_str(), "alter" | "partition" | "materialized"));
        if self.rows_changed && looks_at_rows {
            self.follow();
        }
        let before = permanent.is_some().then(|| relations(&mut self.plain));
        let replies = self.plain.simple(sql);
        (self.rows_changed, self.defined) = (true, true);
        if !succeeded(&replies) {
            return;
        }
        if sql.to_lowercase().contains("explain")
            && let Some(at) = words.iter().position(|word| word == "function")
        {
            self.explaining.extend(words.get(at + 1).cloned());
        }
        if let Some(before) = before {
            let now = relations(&mut self.plain);
            self.temporary
                .extend(now.into_iter().filter(|name| !before.contains(name)));
        }
        if words.iter().any(|word| word == "pg_temp") {
            // It belongs to the session.
            self.reordered.simple(sql);
            self.ask(sql);
            self.align();
        } else {
            self.define_on_shards(sql);
        }
    }

    /// Repeats a definition. What a transaction block drops stays until it ends, or something may take its name: a block
    /// that is rolled back has dropped nothing.
    fn define_on_shards(&mut self, sql: &str) {
        if self.plain.status == b'T' {
            self.defined_in_block = true;
            let drops = tokens(sql)
                .first()
                .is_some_and(|token| token.text == "drop");
            if drops {
                self.dropped_in_block = true;
                return;
            }
            if std::mem::take(&mut self.dropped_in_block) {
                self.mirror.reconcile(&mut self.plain);
            }
        }
        if self.mirror.repeat(sql) == Err(Blocked) {
            self.restart_block();
            let _ = self.mirror.repeat(sql);
        }
    }

    /// Runs on both sides and compares: both answers. In a file that only prepares, on the plain server.
    fn both(&mut self, statement: &Statement) -> (Vec<Reply>, Option<Vec<Reply>>) {
        let sql = statement.text.as_str();
        if self.usage == Use::Prepares {
            self.rows_changed = true;
            return (self.plain.simple(sql), None);
        }
        self.bring_up_to_date();
        let expected = self.plain.simple(sql);
        let found = self.ask(statement.routed.as_deref().unwrap_or(sql));
        // A cursor has to be where the others are.
        let moves = Kind::of(sql) == Kind::Cursor;
        let other = moves.then(|| self.reordered.simple(sql));
        self.note(statement, &expected, found.as_deref(), other);
        self.align();
        if self.plain.status != b'E' && self.sees_everything() {
            let position = self.log_position();
            self.rows_changed |= self.position != position;
        }
        (expected, found)
    }

    pub(super) fn note(
        &mut self,
        statement: &Statement,
        expected: &[Reply],
        found: Option<&[Reply]>,
        other: Option<Vec<Reply>>,
    ) {
        let failure = expected.iter().find_map(|reply| reply.failure.as_ref());
        if let Some(failure) = failure {
            let code = found.and_then(|found| found.iter().find_map(Reply::sqlstate));
            let same = code == Some(failure.sqlstate());
            self.report.failed(same);
            if !same {
                self.report
                    .add(difference(statement, Outcome::OtherError, expected, found));
            }
            return;
        }
        let mut verdict = match found {
            Some(found) => compare(&statement.text, expected, found),
            None => Verdict::Different(What::Lost),
        };
        if let (Some(undone), Some(found)) =
            (self.undone.as_ref().or(self.not_held.as_ref()), found)
            && lacks_cursor(&statement.text, found, &verdict)
        {
            verdict = Verdict::Refused(undone.clone());
        }
        if let (Verdict::Different(_), true) = (&verdict, self.follows_refusal()) {
            verdict = Verdict::Refused(FOLLOWS.to_owned());
        }
        if let Verdict::Refused(reason) = &verdict {
            if self.plain.status == b'T' {
                self.undone = Some(reason.clone());
            }
            if declares_held(&statement.text) {
                self.not_held = Some(reason.clone());
            }
        }
        // The other plain server has none of the rows that the shards were not given.
        if let (Verdict::Different(What::Rows | What::Order), Some(found)) = (&verdict, found)
            && self.usage != Use::Written
        {
            let sql = &statement.text;
            let other = other.unwrap_or_else(|| self.reordered.simple(sql));
            if compare(sql, &other, found) == Verdict::Equal {
                verdict = Verdict::EqualReordered;
            } else if succeeded(&other) && compare(sql, expected, &other) != Verdict::Equal {
                verdict = Verdict::Undetermined;
            }
        }
        self.report.count(&verdict);
        let outcome = match verdict {
            Verdict::Equal | Verdict::EqualReordered => return,
            Verdict::Undetermined => Outcome::Undetermined,
            Verdict::Refused(reason) => Outcome::Refused(reason),
            Verdict::Different(what) => Outcome::Different(what),
        };
        self.report
            .add(difference(statement, outcome, expected, found));
    }

    /// Whether the router has not done all that the plain server has before.
    pub(super) fn follows_refusal(&self) -> bool {
        self.usage == Use::Written && (self.strayed || self.undone.is_some())
    }

    /// The router's answer; none if the connection was lost over it, or it did not come in time.
    pub(super) fn ask(&mut self, sql: &str) -> Option<Vec<Reply>> {
        self.asked(|routed| routed.simple(sql))
    }

    /// The same, by whatever way of asking.
    pub(super) fn asked(
        &mut self,
        ask: impl FnOnce(&mut Client) -> Vec<Reply>,
    ) -> Option<Vec<Reply>> {
        let routed = &mut self.routed;
        let answer = catch_unwind(AssertUnwindSafe(|| ask(routed))).ok();
        if answer.is_none() {
            self.routed = self.stand.routed();
            for setting in &self.settings {
                self.routed.simple(setting);
            }
        }
        answer
    }

    /// Brings the router's transaction block to where the plain server's is.
    pub(super) fn align(&mut self) {
        match (self.plain.status, self.routed.status) {
            (b'T', b'E') => self.restart_routed(),
            (b'T' | b'E', b'I') => drop(self.ask("BEGIN")),
            (b'I', b'T' | b'E') => drop(self.ask("ROLLBACK")),
            (b'E', b'T') if self.usage == Use::Written => drop(self.ask("SELECT 1/0")),
            _ => {}
        }
        match (self.plain.status, self.reordered.status) {
            (b'T', b'E') => drop(self.reordered.simple("ROLLBACK; BEGIN")),
            (b'T' | b'E', b'I') => drop(self.reordered.simple("BEGIN")),
            (b'I', b'T' | b'E') => drop(self.reordered.simple("ROLLBACK")),
            _ => {}
        }
    }

    fn restart_block(&mut self) {
        if self.reordered.status != b'I' {
            self.reordered.simple("ROLLBACK; BEGIN");
        }
        self.restart_routed();
    }

    fn restart_routed(&mut self) {
        if self.routed.status != b'I' {
            self.ask("ROLLBACK");
            self.ask("BEGIN");
            if self.usage == Use::Written {
                // What the router's block had written is gone.
                self.mirror.doubt();
                self.rows_changed = true;
            }
        }
    }

    /// Rows to the shards, tables to the router.
    pub(super) fn bring_up_to_date(&mut self) {
        if self.plain.status == b'E' || !self.sees_everything() {
            return;
        }
        if self.rows_changed || self.defined {
            self.follow();
        }
        if self.defined {
            self.stand.announce(self.mirror.keys());
            self.defined = false;
            if self.usage == Use::Written && self.routed.status != b'I' {
                // A transaction cannot go on when tables have been given other places.
                self.restart_routed();
                self.follow();
                let reason = "the comparison has begun the router's transaction anew";
                self.undone = Some(reason.to_owned());
            }
        }
        self.position = self.log_position();
    }

    fn follow(&mut self) {
        if self.plain.status == b'E' || !self.sees_everything() {
            return;
        }
        if self.mirror.follow(&mut self.plain) == Err(Blocked) {
            self.restart_block();
            let _ = self.mirror.follow(&mut self.plain);
        }
        (self.rows_changed, self.strayed) = (false, false);
    }

    /// Whether the plain server's session may read every table. A file that has taken a role has made its tables before.
    pub(super) fn sees_everything(&self) -> bool {
        self.plain
            .parameters
            .get("is_superuser")
            .map(String::as_str)
            == Some("on")
    }

    fn log_position(&mut self) -> String {
        self.plain
            .run("SELECT pg_catalog.pg_current_wal_insert_lsn()")
            .succeeded()
            .value()
    }

    fn finish(mut self) -> FileReport {
        if self.plain.status != b'I' {
            self.transaction(&Statement {
                line: 0,
                text: "ROLLBACK".to_owned(),
                routed: None,
                ended_by: None,
            });
        }
        self.definition("RESET ALL");
        for name in std::mem::take(&mut self.temporary) {
            self.definition(&format!("DROP {name} CASCADE"));
        }
        self.report.troubles.extend(self.mirror.troubles());
        self.report
    }
}

fn branch(branches: &mut Vec<(bool, bool)>, name: &str, words: &[String]) {
    let holds = words
        .first()
        .is_some_and(|word| matches!(word.as_str(), "t" | "true" | "on" | "1" | "yes"));
    match (name, branches.last_mut()) {
        ("if", _) => branches.push((holds, holds)),
        ("elif", Some(branch)) => *branch = (!branch.1 && holds, branch.1 || holds),
        ("else", Some(branch)) => *branch = (!branch.1, true),
        _ => drop(branches.pop()),
    }
}

/// What `\gset` sets.
fn values(prefix: &str, reply: &Reply) -> Variables {
    let row = reply.texts().into_iter().next().unwrap_or_default();
    let columns = reply.columns.iter().flatten();
    columns
        .zip(row)
        .map(|(column, value)| (format!("{prefix}{}", column.name), value))
        .collect()
}

/// Whether an answer differs because there is a cursor less: it is not there, or not listed.
fn lacks_cursor(sql: &str, found: &[Reply], verdict: &Verdict) -> bool {
    let lists = || tokens(sql).iter().any(|token| token.text == "pg_cursors");
    found.iter().find_map(Reply::sqlstate) == Some(NO_SUCH_CURSOR)
        || *verdict == Verdict::Different(What::Rows) && lists()
}

fn declares_held(sql: &str) -> bool {
    let tokens = tokens(sql);
    let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    words.first() == Some(&"declare") && words.windows(2).any(|pair| pair == ["with", "hold"])
}

fn succeeded(replies: &[Reply]) -> bool {
    replies.iter().all(|reply| reply.failure.is_none())
}

/// Relations as DROP wants them named.
fn relations(plain: &mut Client) -> Vec<String> {
    let sql = "SELECT pg_catalog.format('%s %s', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, \
               oid::pg_catalog.regclass) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'S')";
    plain.run(sql).texts().into_iter().flatten().collect()
}

fn difference(
    statement: &Statement,
    outcome: Outcome,
    expected: &[Reply],
    found: Option<&[Reply]>,
) -> Difference {
    Difference {
        line: statement.line,
        sql: statement.text.clone(),
        outcome,
        plain: show(expected),
        router: found.map_or_else(|| "no answer".to_owned(), show),
    }
}
