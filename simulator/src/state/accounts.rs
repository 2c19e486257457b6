//! The connected accounts of one project, with the indices that keep every access cheap at ten thousand rows.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    account::{Account, AccountType, NewAccount, Transition},
    lifecycle::{AccountStatus, Event, Lifecycle, REASON_REVOKED_BY_DELETE, Refusal},
};
use crate::{ids, provider::ProviderMode};

/// Another row holds the alias.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AliasTaken(pub(crate) String);

/// Position of an account in its store. Rows are never removed, so it stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Row(usize);

type AliasKey = (String, String, String);

#[derive(Default)]
pub(crate) struct Accounts {
    /// In order of creation.
    rows: Vec<Account>,
    by_id: HashMap<String, Row>,
    by_user: HashMap<String, Vec<Row>>,
    by_token: HashMap<String, Row>,
    /// Rows that hold an alias of (user, toolkit). There is more than one only if dead rows do not reserve theirs.
    by_alias: HashMap<AliasKey, Vec<Row>>,
    deadlines: BTreeSet<(Timestamp, Row)>,
    active_by_config: HashMap<String, usize>,
    /// Grows with every change; tells waiters that something happened.
    revision: u64,
}

impl Accounts {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Expires every pending account whose deadline has passed. Each access begins with this, so that an advanced clock
    /// has its effect at once, without a timer.
    pub(crate) fn expire_overdue(&mut self, now: Timestamp) {
        while let Some(&(deadline, row)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            // The transition removes the deadline; a row here is pending, which LinkExpired never refuses.
            if self.apply(row, &Event::LinkExpired, deadline).is_err() {
                self.deadlines.remove(&(deadline, row));
            }
        }
    }

    pub(crate) fn create(
        &mut self,
        new: NewAccount,
        dead_rows_hold_alias: bool,
        now: Timestamp,
    ) -> Result<Row, AliasTaken> {
        let row = Row(self.rows.len());
        let alias = new.alias.filter(|alias| !alias.is_empty());
        if let Some(alias) = &alias {
            self.claim_alias(row, &new.user_id, &new.toolkit, alias, dead_rows_hold_alias)?;
        }
        let ready = new.credentials.is_some();
        let lifecycle = if ready {
            Lifecycle::ready()
        } else {
            Lifecycle::waiting(now)
        };
        let account = Account {
            id: ids::connected_account(),
            uuid: ids::uuid(),
            word_id: ids::word_id(&new.toolkit),
            user_id: new.user_id,
            toolkit: new.toolkit,
            auth_config_id: new.auth_config_id,
            auth_scheme: new.auth_scheme,
            alias,
            callback_url: new.callback_url,
            kind: new.account_type,
            acl: new.acl,
            initiation: new.initiation,
            credentials: new.credentials.unwrap_or_default(),
            link_token: (!ready).then(ids::link_token),
            username: None,
            provider: ProviderMode::default(),
            created_at: now,
            updated_at: now,
            deleted_at: None,
            revoked_upstream: false,
            history: vec![Transition {
                at: now,
                from: None,
                to: lifecycle.status,
                event: "created".to_owned(),
            }],
            lifecycle,
        };
        self.by_id.insert(account.id.clone(), row);
        self.by_user.entry(account.user_id.clone()).or_default().push(row);
        if let Some(token) = &account.link_token {
            self.by_token.insert(token.clone(), row);
        }
        if let Some(deadline) = account.lifecycle.deadline {
            self.deadlines.insert((deadline, row));
        }
        if ready {
            *self
                .active_by_config
                .entry(account.auth_config_id.clone())
                .or_default() += 1;
        }
        self.rows.push(account);
        self.revision += 1;
        Ok(row)
    }

    pub(crate) fn get(&self, row: Row) -> &Account {
        &self.rows[row.0]
    }

    /// The account of that id, unless it was deleted.
    pub(crate) fn find(&self, id: &str) -> Option<Row> {
        self.find_any(id).filter(|&row| !self.get(row).is_deleted())
    }

    /// The account of that id, even if it was deleted.
    pub(crate) fn find_any(&self, id: &str) -> Option<Row> {
        self.by_id.get(id).copied()
    }

    /// The account a link belongs to, even if it was deleted; a link that a newer one replaced finds nothing.
    pub(crate) fn find_link(&self, token: &str) -> Option<Row> {
        self.by_token.get(token).copied()
    }

    /// Every row of one user, oldest first.
    pub(crate) fn of_user(&self, user_id: &str) -> impl DoubleEndedIterator<Item = Row> + '_ {
        self.by_user.get(user_id).into_iter().flatten().copied()
    }

    /// Every row, oldest first, including deleted ones.
    pub(crate) fn rows(&self) -> impl DoubleEndedIterator<Item = Row> + '_ {
        (0..self.rows.len()).map(Row)
    }

    /// The pending account whose time runs out next.
    pub(crate) fn next_deadline(&self) -> Option<(Timestamp, Row)> {
        self.deadlines.first().copied()
    }

    /// How many working accounts an auth config has.
    pub(crate) fn active_of_config(&self, auth_config_id: &str) -> usize {
        self.active_by_config
            .get(auth_config_id)
            .copied()
            .unwrap_or_default()
    }

    /// Applies `event`; `updated_at` and the history move only if it changes something.
    pub(crate) fn apply(&mut self, row: Row, event: &Event, now: Timestamp) -> Result<(), Refusal> {
        let account = &mut self.rows[row.0];
        let Some(next) = account.lifecycle.after(event, now)? else {
            return Ok(());
        };
        let before = std::mem::replace(&mut account.lifecycle, next);
        let (from, to) = (before.status, account.lifecycle.status);
        account.updated_at = now;
        account.history.push(Transition {
            at: now,
            from: Some(from),
            to,
            event: <&str>::from(event).to_owned(),
        });
        if matches!(event, Event::Revoked { .. }) {
            account.revoked_upstream = true;
        }
        if let Some(deadline) = before.deadline {
            self.deadlines.remove(&(deadline, row));
        }
        if let Some(deadline) = account.lifecycle.deadline {
            self.deadlines.insert((deadline, row));
        }
        if !account.is_deleted() {
            let active = self
                .active_by_config
                .entry(account.auth_config_id.clone())
                .or_default();
            *active += usize::from(to == AccountStatus::Active);
            *active -= usize::from(from == AccountStatus::Active);
        }
        self.revision += 1;
        Ok(())
    }

    /// The person agrees and is `username` at the provider. Opens the page first, if that did not happen yet.
    pub(crate) fn consent(
        &mut self,
        row: Row,
        username: String,
        credentials: Map<String, Value>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.get(row).status() == AccountStatus::Initializing {
            self.apply(row, &Event::Opened, now)?;
        }
        self.apply(row, &Event::Consented, now)?;
        let account = &mut self.rows[row.0];
        account.username = Some(username);
        account.credentials.extend(credentials);
        Ok(())
    }

    /// Begins another authorization, whose link replaces the account's last one. Returns the new token.
    pub(crate) fn restart(
        &mut self,
        row: Row,
        callback_url: Option<String>,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        self.apply(row, &Event::Restarted, now)?;
        let token = ids::link_token();
        let account = &mut self.rows[row.0];
        if callback_url.is_some() {
            account.callback_url = callback_url;
        }
        if let Some(old) = account.link_token.replace(token.clone()) {
            self.by_token.remove(&old);
        }
        self.by_token.insert(token.clone(), row);
        Ok(token)
    }

    /// Sets the alias, or clears it with `None`.
    pub(crate) fn set_alias(
        &mut self,
        row: Row,
        alias: Option<String>,
        dead_rows_hold_alias: bool,
        now: Timestamp,
    ) -> Result<(), AliasTaken> {
        let account = self.get(row);
        if account.alias == alias {
            return Ok(());
        }
        let (user_id, toolkit) = (account.user_id.clone(), account.toolkit.clone());
        if let Some(alias) = &alias {
            self.claim_alias(row, &user_id, &toolkit, alias, dead_rows_hold_alias)?;
        }
        self.release_alias(row);
        self.rows[row.0].alias = alias;
        self.touch(row, now);
        Ok(())
    }

    /// Replaces secrets and initiation fields; a null removes one.
    pub(crate) fn set_credentials(&mut self, row: Row, changes: Map<String, Value>, now: Timestamp) {
        let credentials = &mut self.rows[row.0].credentials;
        for (name, value) in changes {
            if value.is_null() {
                credentials.remove(&name);
            } else {
                credentials.insert(name, value);
            }
        }
        self.touch(row, now);
    }

    pub(crate) fn set_sharing(&mut self, row: Row, kind: AccountType, acl: Option<Value>, now: Timestamp) {
        let account = &mut self.rows[row.0];
        account.kind = kind;
        account.acl = acl;
        self.touch(row, now);
    }

    pub(crate) fn set_provider(&mut self, row: Row, mode: ProviderMode) {
        self.rows[row.0].provider = mode;
        self.revision += 1;
    }

    /// Soft delete. The alias is free again; upstream tokens survive unless `revoke`.
    pub(crate) fn delete(&mut self, row: Row, revoke: bool, now: Timestamp) {
        if revoke {
            // Nothing to revoke unless it works, and deletion goes on either way.
            let _ = self.apply(
                row,
                &Event::Revoked {
                    reason: REASON_REVOKED_BY_DELETE,
                },
                now,
            );
        }
        self.release_alias(row);
        let account = &mut self.rows[row.0];
        let status = account.status();
        if status == AccountStatus::Active
            && let Some(active) = self.active_by_config.get_mut(&account.auth_config_id)
        {
            *active -= 1;
        }
        account.deleted_at = Some(now);
        account.updated_at = now;
        account.history.push(Transition {
            at: now,
            from: Some(status),
            to: status,
            event: "deleted".to_owned(),
        });
        if let Some(deadline) = account.lifecycle.deadline.take() {
            self.deadlines.remove(&(deadline, row));
        }
        self.revision += 1;
    }

    fn touch(&mut self, row: Row, now: Timestamp) {
        self.rows[row.0].updated_at = now;
        self.revision += 1;
    }

    fn claim_alias(
        &mut self,
        row: Row,
        user_id: &str,
        toolkit: &str,
        alias: &str,
        dead_rows_hold_alias: bool,
    ) -> Result<(), AliasTaken> {
        let key = (user_id.to_owned(), toolkit.to_owned(), alias.to_owned());
        let taken = self.by_alias.get(&key).is_some_and(|holders| {
            holders
                .iter()
                .any(|&holder| dead_rows_hold_alias || !self.get(holder).status().is_dead())
        });
        if taken {
            return Err(AliasTaken(alias.to_owned()));
        }
        self.by_alias.entry(key).or_default().push(row);
        Ok(())
    }

    fn release_alias(&mut self, row: Row) {
        let account = self.get(row);
        let Some(alias) = account.alias.clone() else {
            return;
        };
        let key = (account.user_id.clone(), account.toolkit.clone(), alias);
        if let Some(holders) = self.by_alias.get_mut(&key) {
            holders.retain(|&holder| holder != row);
            if holders.is_empty() {
                self.by_alias.remove(&key);
            }
        }
    }
}
