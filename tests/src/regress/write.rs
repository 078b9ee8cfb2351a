//! Files that write: each statement runs on the plain server and through the router, and what it leaves in the tables is compared.
//!
//! While both agree, the shards' rows are the router's own work. Where they do not, the shards are given the plain server's rows
//! once more, so that one difference is not counted again with every statement after it.

use super::compare::{Verdict, What, compare, show};
use super::report::{Difference, Outcome};
use super::run::Run;
use super::script::{Script, Statement};
use super::source::Use;
use super::statement::{copied_file, tokens};
use crate::{Client, Reply};

/// Why an answer is another one where the router has not done all that the plain server has.
pub(super) const FOLLOWS: &str = "it follows a statement that was refused";

impl Run<'_> {
    /// Changes rows, on both sides if that is compared.
    pub(super) fn data(&mut self, statement: &Statement) {
        self.write(statement, &|client, sql| client.simple(sql));
    }

    /// COPY with its rows behind it in the script, or in a file.
    pub(super) fn copy_in(&mut self, statement: &Statement, script: &mut Script<'_>) {
        let (text, data) = match copied_file(&statement.text) {
            Some((text, file)) => match std::fs::read(&file) {
                Ok(data) => (text, data),
                Err(error) => {
                    self.report.troubles.push(format!("{file}: {error}"));
                    return;
                }
            },
            None => (
                statement.text.clone(),
                script.copy_data().as_bytes().to_vec(),
            ),
        };
        let statement = Statement {
            text,
            routed: None,
            ended_by: None,
            line: statement.line,
        };
        self.write(&statement, &|client, sql| {
            client.send(|buffer| postgres_protocol::message::frontend::query(sql, buffer).unwrap());
            client.replies(Some(&data))
        });
    }

    fn write(&mut self, statement: &Statement, run: &dyn Fn(&mut Client, &str) -> Vec<Reply>) {
        if self.usage != Use::Written {
            run(&mut self.plain, &statement.text);
            self.rows_changed = true;
            return;
        }
        self.bring_up_to_date();
        let expected = run(&mut self.plain, &statement.text);
        let text = statement.routed.as_deref().unwrap_or(&statement.text);
        let found = self.asked(|routed| run(routed, text));
        let both_did = !failed(&expected) && found.as_ref().is_some_and(|found| !failed(found));
        let looks = both_did && self.sees_everything();
        let stored = match looks {
            true => self.stored_otherwise(statement),
            false => None,
        };
        let agreed = failed(&expected) == found.as_ref().is_none_or(|found| failed(found));
        if let Some(difference) = &stored {
            let (verdict, outcome) = match self.follows_refusal() {
                false => (Verdict::Different(What::Stored), difference.outcome.clone()),
                true => {
                    let reason = FOLLOWS.to_owned();
                    (Verdict::Refused(reason.clone()), Outcome::Refused(reason))
                }
            };
            self.report.count(&verdict);
            self.report.add(Difference {
                outcome,
                ..difference.clone()
            });
        } else {
            self.note(statement, &expected, found.as_deref(), None);
        }
        if agreed && stored.is_none() {
            // A session that may not see every table cannot tell what it has changed: that is looked at when one can.
            match self.sees_everything() {
                true => self.mirror.accept(&mut self.plain),
                false => self.rows_changed = true,
            }
            self.align();
        } else {
            self.begin_anew();
        }
    }

    /// A table in which there are other rows now than on the plain server, of those that the statement names or has changed.
    fn stored_otherwise(&mut self, statement: &Statement) -> Option<Difference> {
        let words: Vec<String> = tokens(&statement.text)
            .into_iter()
            .map(|token| token.text.trim_matches('"').to_owned())
            .collect();
        let mut tables = self.mirror.changed(&mut self.plain, &words).into_iter();
        tables.find_map(|table| {
            let sql = format!("SELECT * FROM {table}");
            let expected = self.plain.simple(&sql);
            let found = self.ask(&sql).unwrap_or_default();
            (compare(&sql, &expected, &found) != Verdict::Equal).then(|| Difference {
                line: statement.line,
                sql: statement.text.clone(),
                outcome: Outcome::Different(What::Stored),
                plain: format!("{table}: {}", show(&expected)),
                router: format!("{table}: {}", show(&found)),
            })
        })
    }

    /// The router's block, if there is one, begins anew, and the shards are given the plain server's rows.
    fn begin_anew(&mut self) {
        if self.routed.status != b'I' {
            self.ask("ROLLBACK");
        }
        self.align();
        self.mirror.doubt();
        self.rows_changed = true;
        self.strayed = !self.sees_everything();
    }
}

/// Whether a statement has failed.
fn failed(replies: &[Reply]) -> bool {
    replies.iter().any(|reply| reply.failure.is_some())
}
