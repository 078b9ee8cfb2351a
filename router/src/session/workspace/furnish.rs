//! Furnishing a workspace: its transaction, its tables, the rows in them, its views.

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_identifier;
use switchyard_schema::{ShardIndex, ShardSet, TableName};
use switchyard_wire::SqlState;

use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::learned::{self, Estimate};
use crate::plan::workspace::fetch::{names, qualified};
use crate::plan::workspace::{Fetch, Home, TemporaryView, Text};
use crate::plan::{self, Command, Finish};
use crate::session::Session;
use crate::session::workspace::error_in;
use crate::session::workspace::fetch::{Asked, Brought, Part, not_brought};
use crate::session::workspace::finish::Fetched;

/// A workspace with everything in it that a statement reads.
pub(in crate::session) struct Furnished {
    pub(in crate::session) workspace: Workspace,
    /// The statement's text as it runs there.
    pub(in crate::session) text: Vec<u8>,
    /// Of what relations there are rows.
    pub(in crate::session) brought: Vec<Brought>,
    /// Arrays that are given with the text, behind the client's parameters.
    pub(in crate::session) given: Vec<Option<Bytes>>,
}

/// What comes of furnishing a workspace.
pub(in crate::session) enum Furnishing {
    Done(Box<Furnished>),
    /// A part of the statement has failed on a shard: when the statement is executed, the client is told this.
    Failed(BytesMut),
}

/// What is brought to a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Fill {
    /// The rows that the statement reads.
    Rows,
    /// The same, unless they can be given by parameters.
    Given,
    /// None: the tables are made, and that is all.
    Nothing,
}

impl Fill {
    /// For an execution of a command: only of a plain query PostgreSQL takes parameters anywhere.
    pub(in crate::session) fn of(command: &Command) -> Self {
        match *command == Command::Select {
            true => Self::Given,
            false => Self::Rows,
        }
    }
}

impl Session {
    /// Makes a workspace with all that the statement reads.
    pub(in crate::session) async fn furnish(
        &mut self,
        plan: &plan::Workspace,
        shards: &[ShardSet],
        asked: &Asked<'_>,
        fill: Fill,
    ) -> Result<Furnishing, Trouble> {
        if self.is_in_the_way() {
            return Err(Failure::Unsupported {
                what: "a read over rows of several shards in a transaction that has changed the schema or locked tables".into(),
                hint: "Commit first.",
            }
            .into());
        }
        let on_first = |fetch: &Fetch| fetch.home == Some(Home::First);
        let home = match plan.at_first || plan.fetches.iter().any(on_first) {
            true => ShardIndex::FIRST,
            false => self.any_shard(),
        };
        let rows = plan.finish.as_deref().zip(shards.last());
        // What the shards are asked then is the client's own text in parts.
        let rows = rows.filter(|_| std::str::from_utf8(asked.sql).is_ok());
        let rows = rows.filter(|_| !(plan.learned.is_apart() && asked.given.is_empty()));
        if let Some(part) = rows.filter(|_| fill == Fill::Given && plan.views.is_empty()) {
            let fetched = Box::pin(self.fetch_part(plan, part, asked)).await;
            match self.or_abandoned(fetched).await? {
                Fetched::Rows(text, given) => return self.furnish_given(home, text, given).await,
                Fetched::Failed(said) => return Ok(Furnishing::Failed(said)),
                Fetched::Not => {}
            }
        }
        if rows.is_none() {
            let learned = self.learn_rows(plan, shards, asked).await;
            self.or_abandoned(learned).await?;
        }
        let estimates = plan.learned.estimates();
        // What the session has not committed is seen by its own connections only.
        let fetches = in_order(plan, shards, &estimates, self.block.is_none());
        let backend = self.take_workspace(home).await?;
        let limit = self.fetch_limit();
        let mut workspace = Workspace::new(backend, limit);
        if plan.at_first {
            self.take_sequences_apart(&mut workspace, &plan.sequences);
        }
        let furnished = self.furnish_with(&mut workspace, plan, (rows, &fetches), asked, fill);
        let furnished = match furnished.await {
            Ok(furnished) => self.not_cancelled(asked.cancels).map(|()| furnished),
            Err(trouble) => Err(trouble),
        };
        match furnished {
            Ok(Ok((text, brought))) => Ok(Furnishing::Done(Box::new(Furnished {
                workspace,
                text,
                brought,
                given: Vec::new(),
            }))),
            Ok(Err(said)) => {
                self.stop(Some(&mut workspace)).await;
                self.give_back_workspace(workspace).await;
                Ok(Furnishing::Failed(said))
            }
            Err(trouble) => {
                let outcome: Result<(), Trouble> = Err(trouble);
                self.leave_workspace(workspace, outcome).await?;
                Err(Trouble::Told)
            }
        }
    }

    /// A workspace for a text with which all rows are given.
    async fn furnish_given(
        &mut self,
        home: ShardIndex,
        text: Vec<u8>,
        given: Vec<Option<Bytes>>,
    ) -> Result<Furnishing, Trouble> {
        let backend = self.take_workspace(home).await?;
        let mut workspace = Workspace::new(backend, 0);
        match self.opening(&mut workspace, &[]).await {
            Ok(opening) => {
                workspace.run_ahead(&opening);
                Ok(Furnishing::Done(Box::new(Furnished {
                    workspace,
                    text,
                    brought: Vec::new(),
                    given,
                })))
            }
            Err(trouble) => {
                let outcome: Result<Furnishing, Trouble> = Err(trouble);
                self.leave_workspace(workspace, outcome).await
            }
        }
    }

    /// Brings the rows of a part of the statement, if they can be put together, else those of the relations: the text that is to
    /// run then. Or what the client is to be told when it is executed.
    async fn furnish_with(
        &mut self,
        workspace: &mut Workspace,
        plan: &plan::Workspace,
        (rows, fetches): (Option<(&Finish, &ShardSet)>, &[Part<'_>]),
        asked: &Asked<'_>,
        fill: Fill,
    ) -> Result<Result<(Vec<u8>, Vec<Brought>), BytesMut>, Trouble> {
        let creations = creations(fetches, asked);
        if let Some((finish, shards)) = rows {
            self.open_workspace(workspace, &plan.views, "").await?;
            if let Some(text) = self.make_rows(workspace, plan, finish, asked).await? {
                let part: Part<'_> = (&finish.rows, shards);
                self.gather(shards, asked.need).await?;
                let rows = self.fill_part(workspace, part, asked, fill).await?;
                return Ok(rows.map(|brought| (text, brought)));
            }
            if !asked.given.is_empty() {
                // What is given was given for the sake of these rows.
                return Err(Failure::Retry.into());
            }
            workspace.run(&mut self.client, &creations).await?;
        } else if plan.own.is_empty() {
            self.open_workspace(workspace, &plan.views, &creations)
                .await?;
        } else {
            self.open_workspace(workspace, &plan.views, "").await?;
            self.list_own(workspace, &plan.own, asked).await?;
            workspace.run(&mut self.client, &creations).await?;
        }
        let none = ShardSet::empty();
        let shards = fetches.iter().fold(none, |all, (_, own)| all.union(own));
        self.gather(&shards, asked.need).await?;
        let views = !plan.views.is_empty();
        let brought = match fill {
            Fill::Rows | Fill::Given => self.fill_for(views, workspace, fetches, asked).await?,
            Fill::Nothing => not_brought(fetches, asked),
        };
        workspace.run(&mut self.client, &finishing(fetches)).await?;
        let is_made = |name: &TableName| {
            fetches.iter().any(|(fetch, _)| fetch.relation == *name)
                || plan.views.iter().any(|view| view.relation == *name)
                || plan.own.iter().any(|view| view.is(name))
        };
        let views = plan.views.iter();
        let making: Vec<(&TableName, String)> = views
            .map(|view| (&view.relation, create_view(view, &is_made)))
            .collect();
        self.make_views(workspace, &making).await?;
        let fetched = fetches.iter().map(|(fetch, _)| *fetch);
        Ok(Ok((plan.text(asked.sql, &is_made, fetched), brought)))
    }

    /// Brings rows that shards make of a part of the statement. An error among them is the statement's own: what the client is to
    /// be told when it is executed.
    async fn fill_part(
        &mut self,
        workspace: &mut Workspace,
        part: Part<'_>,
        asked: &Asked<'_>,
        fill: Fill,
    ) -> Result<Result<Vec<Brought>, BytesMut>, Trouble> {
        if fill == Fill::Nothing {
            return Ok(Ok(not_brought(&[part], asked)));
        }
        let before = self.client.hold();
        let brought = self.fill_workspace(workspace, &[part], asked).await;
        let said = self.client.unhold(before);
        if matches!(brought, Err(Trouble::Told)) && workspace.failed_running() {
            return Ok(Err(said));
        }
        self.client.output.extend_from_slice(&said);
        brought.map(Ok)
    }

    /// So many bytes of rows may be brought to one workspace.
    pub(in crate::session) fn fetch_limit(&self) -> u64 {
        let settings = self.worker.services.settings.load();
        settings.file.router.max_fetch_bytes
    }

    /// Brings the rows. Of those that views read, what the views' owners may read this role may not.
    async fn fill_for(
        &mut self,
        views: bool,
        workspace: &mut Workspace,
        fetches: &[Part<'_>],
        asked: &Asked<'_>,
    ) -> Result<Vec<Brought>, Trouble> {
        if !views {
            return self.fill_workspace(workspace, fetches, asked).await;
        }
        let before = self.client.hold();
        let filled = self.fill_workspace(workspace, fetches, asked).await;
        let said = self.client.unhold(before);
        let denied = error_in(&said) == Some(SqlState::INSUFFICIENT_PRIVILEGE);
        if matches!(filled, Err(Trouble::Told)) && denied {
            let what = "a view over rows of several shards whose tables this role may not read";
            let hint = "Grant SELECT on the tables that the view reads.";
            let what = what.into();
            return Err(Failure::Unsupported { what, hint }.into());
        }
        self.client.output.extend_from_slice(&said);
        filled
    }

    /// Makes the views, of PostgreSQL's own printing, which it does not always read again.
    async fn make_views(
        &mut self,
        workspace: &mut Workspace,
        views: &[(&TableName, String)],
    ) -> Result<(), Trouble> {
        for (view, sql) in views {
            let before = self.client.hold();
            let made = workspace.run(&mut self.client, sql).await;
            let said = self.client.unhold(before);
            if let (Err(Trouble::Told), Some(state)) = (&made, error_in(&said)) {
                tracing::debug!(%view, sqlstate = state.as_str(), "a view cannot be made anew");
                let what = format!("the view \"{view}\" over rows of several shards");
                let hint = "Use the view's query in place of the view.";
                let what = what.into();
                return Err(Failure::Unsupported { what, hint }.into());
            }
            self.client.output.extend_from_slice(&said);
            made?;
        }
        Ok(())
    }

    /// Whether a connection apart would wait for the session itself, and could not see what is not committed.
    pub(in crate::session) fn is_in_the_way(&self) -> bool {
        let waits = |block: &Block| block.locks_tables || block.changed_schema;
        self.block.as_ref().is_some_and(waits)
    }

    /// A connection for a workspace.
    pub(in crate::session) async fn take_workspace(
        &mut self,
        home: ShardIndex,
    ) -> Result<Participant, Trouble> {
        self.end_workspaces_without_portal().await;
        let Self {
            participants,
            database,
            ..
        } = self;
        if let Some(idle) = participants.borrow_workspace_now(database, home)? {
            return Ok(idle);
        }
        self.let_go().await?;
        let Self {
            participants,
            database,
            client,
            entry,
            ..
        } = self;
        let _waiting = entry.waiting();
        let workspace = participants.borrow_workspace(database, home, client);
        Ok(Box::pin(workspace).await?)
    }

    /// Takes a connection to every shard that rows come from. Where one has to be waited for, none of a higher number is
    /// kept meanwhile, nor wanted by those who have lower ones: so two sessions cannot wait for each other, unless
    /// transaction blocks make them keep what they have.
    pub(in crate::session) async fn gather(
        &mut self,
        shards: &ShardSet,
        need: Need,
    ) -> Result<(), Trouble> {
        let mut each = shards.iter();
        if each.all(|shard| self.join_now(shard, need).is_some()) {
            return Ok(());
        }
        self.let_go().await?;
        for shard in shards.iter() {
            self.join(shard, need).await?;
        }
        Ok(())
    }

    /// Begins the workspace's transaction, under the client's settings, with these statements.
    pub(in crate::session) async fn open_workspace(
        &mut self,
        workspace: &mut Workspace,
        views: &[TemporaryView],
        statements: &str,
    ) -> Result<(), Trouble> {
        let mut sql = self.opening(workspace, views).await?;
        sql.push_str(statements);
        workspace.run(&mut self.client, &sql).await
    }

    /// What begins the workspace's transaction, once its connection has the client's settings.
    async fn opening(
        &mut self,
        workspace: &mut Workspace,
        views: &[TemporaryView],
    ) -> Result<String, Trouble> {
        let settings = match &self.block {
            Some(block) => block.settings_before(),
            None => &self.settings,
        };
        if !workspace.backend.has(settings) {
            workspace.backend.apply(settings).await?;
        }
        let mut sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE".to_owned();
        if let Some(block) = &self.block {
            sql.push_str(&block.settings_sql());
        }
        let router = &self.worker.services.settings.load().file.router;
        if let Some(limit) = router.workspace_temp_limit {
            sql.push_str(&format!(
                "; SET LOCAL temp_file_limit = '{}kB'",
                limit.div_ceil(1024)
            ));
        }
        for view in views {
            // Whether the role may read it: one that is made anew is its own.
            sql.push_str(&format!(
                "; SELECT FROM {} LIMIT 0",
                qualified(&view.relation)
            ));
        }
        sql.push_str("; ");
        Ok(sql)
    }
}

/// What is fetched, in the order in which it is. What is `in_place` on every shard need not be.
fn in_order<'a>(
    plan: &'a plan::Workspace,
    shards: &'a [ShardSet],
    estimates: &'a [Estimate],
    in_place: bool,
) -> Vec<Part<'a>> {
    let moved = |fetch: &Fetch| !(in_place && fetch.home.is_some());
    let numbers = plan.fetches.iter().enumerate();
    let numbers = numbers.filter(|(_, fetch)| moved(fetch));
    let order = learned::in_order(estimates, numbers.map(|(number, _)| number));
    let part = |number: usize| {
        let known = estimates.get(number);
        let better = known.and_then(|known| known.condensed.as_ref().or(known.alone.as_ref()));
        let fetch = better.map(|better| &**better).or(plan.fetches.get(number));
        Some((fetch?, shards.get(number)?))
    };
    order.into_iter().filter_map(part).collect()
}

/// The statements that make the tables.
fn creations(fetches: &[Part<'_>], asked: &Asked<'_>) -> String {
    let text = Text::new(asked.sql);
    let creations = fetches.iter().map(|(fetch, _)| fetch.creation(&text));
    creations.collect::<Vec<_>>().join("; ")
}

/// What is done when the rows are there: keys and indexes, and what the server should know of the tables.
fn finishing(fetches: &[Part<'_>]) -> String {
    let mut steps: Vec<String> = Vec::new();
    let mut tables: Vec<String> = Vec::new();
    for (fetch, _) in fetches {
        let table = format!("pg_temp.{}", escape_identifier(&fetch.relation.name));
        if !fetch.primary_key.is_empty() {
            let key = names(&fetch.primary_key);
            steps.push(format!("ALTER TABLE {table} ADD PRIMARY KEY ({key})"));
        }
        for column in &fetch.lookups {
            let column = escape_identifier(column);
            steps.push(format!("CREATE INDEX ON {table} ({column})"));
        }
        tables.push(table);
    }
    if !tables.is_empty() {
        // A rough idea is enough, and costs a tenth.
        steps.push("SET LOCAL default_statistics_target = 10".to_owned());
        steps.push(format!("ANALYZE {}", tables.join(", ")));
    }
    steps.join("; ")
}

fn create_view(view: &TemporaryView, is_made: &dyn Fn(&TableName) -> bool) -> String {
    let query = view.text(is_made);
    format!(
        "CREATE TEMPORARY VIEW {} ({}) AS {}",
        escape_identifier(&view.relation.name),
        names(&view.columns),
        String::from_utf8_lossy(&query)
            .trim_end()
            .trim_end_matches(';')
    )
}
