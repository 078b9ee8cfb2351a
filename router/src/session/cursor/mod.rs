//! Cursors over rows of several shards: each has a workspace that stays open for it.
//!
//! The workspace's transaction is the cursor's own. It is committed when the client's is, if the cursor is WITH HOLD:
//! PostgreSQL then keeps the rows that are left, and the temporary tables go. It ends with the cursor.

pub(super) mod of_cursor;
mod places;

use bytes::{Bytes, BytesMut};
use switchyard_wire::frontend::{self, Bind};

use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::messages::{Said, next, violation};
use crate::execute::relay::{Trouble, exchange};
use crate::execute::workspace::Workspace;
use crate::plan::Command;
use crate::plan::lock::Locked;
use crate::session::Session;
use crate::session::extended::queue_execute;
use crate::session::route::Cursor;
use crate::session::simple::{Ready, Sent};
use crate::session::workspace::planned;

/// A cursor in a workspace.
#[derive(Debug)]
pub(in crate::session) struct CursorApart {
    pub(in crate::session) name: String,
    /// What declared it, if that is known.
    pub(in crate::session) statement: Option<String>,
    pub(in crate::session) workspace: Workspace,
    /// What PostgreSQL says of its rows, on the tables as they are: a whole RowDescription.
    description: Bytes,
    lasts: Lasts,
    /// The tables of whose rows it has the places, in the order of their columns; `Err` is why it has none.
    pub(in crate::session) places: Result<Vec<Locked>, String>,
}

/// How long a cursor lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasts {
    /// As long as the block, or longer if the block is committed and `hold`. It was declared after so many steps of the block.
    Block { hold: bool, since: usize },
    /// As long as the session.
    Session,
}

impl Session {
    /// Whether a cursor of this name can be declared; `hold`: it may outlive its transaction.
    pub(in crate::session) fn may_declare(&self, name: &str, hold: bool) -> Result<(), Failure> {
        if self.block.is_none() && !hold {
            return Err(Failure::NoBlock("DECLARE CURSOR"));
        }
        let exists = self.cursor_apart(name).is_some()
            || self.cursors.iter().any(|cursor| cursor.name == name)
            || self.portals.get(name.as_bytes()).is_some();
        match exists {
            true => Err(Failure::DuplicateCursor(name.into())),
            false => Ok(()),
        }
    }

    /// A statement has succeeded in a workspace, which is kept if it was DECLARE, and left otherwise.
    pub(in crate::session) async fn keep_cursor(
        &mut self,
        command: &Command,
        sql: Option<&[u8]>,
        mut workspace: Workspace,
        description: Bytes,
    ) -> Result<(), Trouble> {
        let Command::Declare { name, hold } = command else {
            return self.leave_workspace(workspace, Ok(())).await;
        };
        let mut lasts = Lasts::Session;
        match &self.block {
            Some(block) => {
                let since = block.steps();
                lasts = Lasts::Block { hold: *hold, since };
            }
            None => {
                if let Err(trouble) = workspace.run(&mut self.client, "COMMIT").await {
                    return self.leave_workspace(workspace, Err(trouble)).await;
                }
            }
        }
        self.cursors_apart.push(CursorApart {
            name: name.clone(),
            statement: sql.map(|sql| String::from_utf8_lossy(sql).into_owned()),
            workspace,
            description,
            lasts,
            places: Err("It is not declared FOR UPDATE.".into()),
        });
        Ok(())
    }

    /// The cursor that has just been declared has the places of rows of these tables; `Err` is why not.
    pub(in crate::session) fn note_places(&mut self, places: Result<Vec<Locked>, String>) {
        if let Some(cursor) = self.cursors_apart.last_mut() {
            cursor.places = places;
        }
    }

    /// The cursor of this name, if it is in a workspace.
    pub(in crate::session) fn cursor_apart(&self, name: &str) -> Option<usize> {
        let mut cursors = self.cursors_apart.iter();
        cursors.position(|cursor| cursor.name == name)
    }

    /// FETCH or MOVE by the simple protocol.
    pub(in crate::session) async fn fetch_apart(
        &mut self,
        at: usize,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let mut cursor = self.cursors_apart.swap_remove(at);
        let tag = self.fetch_rows(&mut cursor, sent.sql()).await;
        let tag = self.put_back_cursor(cursor, tag).await?;
        self.complete(&tag)
    }

    /// The client gets the rows; the tag is still to be said.
    async fn fetch_rows(
        &mut self,
        cursor: &mut CursorApart,
        sql: &[u8],
    ) -> Result<String, Trouble> {
        let workspace = &mut cursor.workspace;
        let messages = |output: &mut BytesMut| frontend::encode::query(output, sql);
        workspace.ask(&mut self.client, messages).await?;
        let (mut failed, mut moved) = (false, None);
        loop {
            let backend = &mut workspace.backend;
            match next(&mut self.client, backend, Show::All).await? {
                Said::Message(header) => {
                    let message = backend.connection.input.split_to(header.len);
                    match header.tag {
                        b'T' => {
                            let description = planned(&cursor.description, &message);
                            self.client.output.extend_from_slice(&description);
                            break;
                        }
                        b'C' => moved = Some(tag_of(&message)),
                        tag => return Err(violation(backend, Some(tag))),
                    }
                }
                Said::Error => failed = true,
                Said::Ready if failed => {
                    workspace.answer_noted();
                    return Err(Trouble::Told);
                }
                Said::Ready => {
                    let moved = moved.ok_or_else(|| violation(backend, Some(b'Z')))?;
                    workspace.answer_noted();
                    return Ok(moved);
                }
            }
        }
        workspace.answer_noted();
        let backend = &mut workspace.backend;
        let reply = Reply::Part {
            describe: false,
            ready: true,
        };
        backend.connection.replies.expect(reply, Show::All);
        match exchange(&mut self.client, backend, &[], &mut self.described).await? {
            true => Err(Trouble::Told),
            false => Ok(format!(
                "FETCH {}",
                backend.connection.replies.last_tag().rows()
            )),
        }
    }

    /// A cursor has been used. An error is the end of its transaction, and of it, unless it has none any more.
    pub(in crate::session) async fn put_back_cursor<T>(
        &mut self,
        cursor: CursorApart,
        outcome: Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let told = matches!(outcome, Err(Trouble::Told));
        let survives = told && cursor.lasts == Lasts::Session && cursor.workspace.is_at_rest();
        if outcome.is_err() && !survives {
            return self.leave_workspace(cursor.workspace, outcome).await;
        }
        if survives {
            self.abandon_rows(None).await;
        }
        self.cursors_apart.push(cursor);
        outcome
    }

    /// What a FETCH by the extended protocol will answer: its RowDescription, in the formats it was bound with.
    pub(in crate::session) async fn describe_fetch(
        &mut self,
        at: usize,
        sql: &[u8],
        bind: &Bind<'_>,
    ) -> Result<Option<Bytes>, Trouble> {
        let mut cursor = self.cursors_apart.swap_remove(at);
        let messages = |output: &mut BytesMut| {
            frontend::encode::parse(output, b"", sql, &[]);
            frontend::encode::bind_like(output, bind, b"");
            frontend::encode::describe(output, frontend::Kind::Portal, bind.portal);
            frontend::encode::sync(output);
        };
        let own = cursor.workspace.send(&mut self.client, messages).await;
        let own = self.put_back_cursor(cursor, own).await?;
        let cursor = self.cursors_apart.last();
        let described = cursor.filter(|_| !own.is_empty());
        Ok(described.map(|cursor| planned(&cursor.description, &own)))
    }

    /// Executes a FETCH, which is bound by this message, by the extended protocol.
    pub(in crate::session) async fn execute_fetch(
        &mut self,
        name: &str,
        sql: &[u8],
        bind: &[u8],
        max_rows: i32,
    ) -> Result<(), Trouble> {
        let Some(at) = self.cursor_apart(name) else {
            return Err(Failure::NoSuchCursor(name.into()).into());
        };
        let mut cursor = self.cursors_apart.swap_remove(at);
        let backend = &mut cursor.workspace.backend;
        let connection = &mut *backend.connection;
        connection.unnamed = None;
        frontend::encode::parse(&mut connection.output, b"", sql, &[]);
        connection.output.extend_from_slice(bind);
        frontend::encode::execute(&mut connection.output, b"", max_rows);
        frontend::encode::sync(&mut connection.output);
        let parse = Reply::Parse {
            statement: 0,
            named: false,
        };
        let replies = &mut connection.replies;
        replies.expect(parse, Show::Errors);
        replies.expect(Reply::Bind, Show::Errors);
        replies.expect(Reply::Execute, Show::All);
        replies.expect(Reply::Sync, Show::Nothing);
        let outcome = exchange(&mut self.client, backend, &[], &mut self.described).await;
        let outcome = match outcome {
            Ok(true) => Err(Trouble::Told),
            Ok(false) => Ok(()),
            Err(trouble) => Err(trouble),
        };
        self.put_back_cursor(cursor, outcome).await
    }

    /// Executes a cursor as the portal that it is.
    pub(in crate::session) async fn execute_cursor(
        &mut self,
        at: usize,
        max_rows: i32,
    ) -> Result<(), Trouble> {
        let mut cursor = self.cursors_apart.swap_remove(at);
        let backend = &mut cursor.workspace.backend;
        queue_execute(&mut backend.connection, cursor.name.as_bytes(), max_rows);
        let outcome = exchange(&mut self.client, backend, &[], &mut self.described).await;
        let outcome = match outcome {
            Ok(true) => Err(Trouble::Told),
            Ok(false) => Ok(()),
            Err(trouble) => Err(trouble),
        };
        self.put_back_cursor(cursor, outcome).await
    }

    /// What is known of the rows of a cursor, or of what is fetched from it by this text.
    pub(in crate::session) fn describe_cursor(&self, at: usize, sql: &[u8]) -> Option<Bytes> {
        let moves = sql
            .trim_ascii_start()
            .get(..4)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"move"));
        let cursor = self.cursors_apart.get(at).filter(|_| !moves)?;
        Some(cursor.description.clone())
    }

    /// CLOSE of a cursor.
    pub(in crate::session) async fn close_cursor(&mut self, at: usize) -> Result<Ready, Trouble> {
        let cursor = self.cursors_apart.swap_remove(at);
        self.end_workspace(cursor.workspace).await;
        self.complete("CLOSE CURSOR")
    }

    /// CLOSE ALL, and more.
    pub(in crate::session) async fn close_all_cursors(&mut self) {
        while let Some(cursor) = self.cursors_apart.pop() {
            self.end_workspace(cursor.workspace).await;
        }
    }

    /// Whether the block has declared cursors that would outlive it.
    pub(in crate::session) fn will_hold_a_cursor(&self) -> bool {
        let held = |cursor: &CursorApart| matches!(cursor.lasts, Lasts::Block { hold: true, .. });
        let on_shard = |cursor: &Cursor| cursor.hold && cursor.is_new;
        self.cursors_apart.iter().any(held) || self.cursors.iter().any(on_shard)
    }

    /// The block is about to be committed: what is to be held is, all else ends. An error has been shown: then it must not be
    /// committed.
    pub(in crate::session) async fn commit_cursors(&mut self) -> Result<(), Trouble> {
        let cursors = std::mem::take(&mut self.cursors_apart);
        let mut outcome = Ok(());
        for mut cursor in cursors {
            match cursor.lasts {
                Lasts::Session => self.cursors_apart.push(cursor),
                Lasts::Block { hold: true, .. } if outcome.is_ok() => {
                    let committed = cursor.workspace.run(&mut self.client, "COMMIT").await;
                    match committed {
                        Ok(()) => self.cursors_apart.push(cursor),
                        Err(trouble) => {
                            let trouble: Result<(), Trouble> = Err(trouble);
                            outcome = self.leave_workspace(cursor.workspace, trouble).await;
                        }
                    }
                }
                Lasts::Block { .. } => self.end_workspace(cursor.workspace).await,
            }
        }
        outcome
    }

    /// The block has been committed: what is left lasts as long as the session.
    pub(in crate::session) fn hold_cursors(&mut self) {
        for cursor in &mut self.cursors_apart {
            cursor.lasts = Lasts::Session;
        }
    }

    /// The block is rolled back to where it had so many steps: what was declared since ends.
    pub(in crate::session) async fn end_cursors_since(&mut self, steps: usize) {
        let ends = |cursor: &CursorApart| match cursor.lasts {
            Lasts::Block { since, .. } => since >= steps,
            Lasts::Session => false,
        };
        while let Some(at) = self.cursors_apart.iter().position(ends) {
            let cursor = self.cursors_apart.swap_remove(at);
            self.end_workspace(cursor.workspace).await;
        }
    }

    /// A savepoint has been released that was after so many steps: what was declared since belongs to what is around it.
    pub(in crate::session) fn cursors_outlive_savepoint(&mut self, steps: usize) {
        for cursor in &mut self.cursors_apart {
            if let Lasts::Block { since, .. } = &mut cursor.lasts {
                *since = (*since).min(steps);
            }
        }
    }
}

impl CursorApart {
    /// Whether it is left of a transaction that has been committed.
    pub(in crate::session) fn is_held(&self) -> bool {
        self.lasts == Lasts::Session
    }
}

/// The tag in a CommandComplete.
pub(in crate::session) fn tag_of(message: &[u8]) -> String {
    let body = message
        .get(switchyard_wire::frame::HEADER..)
        .unwrap_or_default();
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    String::from_utf8_lossy(tag).into_owned()
}
