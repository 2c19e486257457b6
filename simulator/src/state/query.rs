//! Which accounts a list shows, in which order.

use super::{
    account::{Account, AccountType},
    accounts::{Accounts, Row},
    lifecycle::AccountStatus,
};

/// The time a list is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OrderBy {
    #[default]
    CreatedAt,
    UpdatedAt,
}

/// The filters of a list; an empty one admits everything.
#[derive(Clone, Debug)]
pub(crate) struct AccountFilter {
    pub(crate) ids: Vec<String>,
    pub(crate) user_ids: Vec<String>,
    pub(crate) toolkits: Vec<String>,
    pub(crate) auth_config_ids: Vec<String>,
    pub(crate) statuses: Vec<AccountStatus>,
    /// `None`: private and shared ones.
    pub(crate) account_type: Option<AccountType>,
    pub(crate) order_by: OrderBy,
    pub(crate) ascending: bool,
}

impl Default for AccountFilter {
    /// What Composio shows without any parameter: private accounts, newest first.
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            user_ids: Vec::new(),
            toolkits: Vec::new(),
            auth_config_ids: Vec::new(),
            statuses: Vec::new(),
            account_type: Some(AccountType::Private),
            order_by: OrderBy::CreatedAt,
            ascending: false,
        }
    }
}

impl AccountFilter {
    fn admits(&self, account: &Account) -> bool {
        fn any_of(allowed: &[String], value: &str) -> bool {
            allowed.is_empty() || allowed.iter().any(|candidate| candidate == value)
        }
        !account.is_deleted()
            && self.account_type.is_none_or(|kind| kind == account.kind)
            && (self.statuses.is_empty() || self.statuses.contains(&account.status()))
            && any_of(&self.toolkits, &account.toolkit)
            && any_of(&self.auth_config_ids, &account.auth_config_id)
            && any_of(&self.user_ids, &account.user_id)
            && any_of(&self.ids, &account.id)
    }

    /// The matching rows in order. Starts from the narrowest index, so a list of a hundred ids among ten thousand
    /// accounts looks at a hundred rows.
    pub(crate) fn select(&self, accounts: &Accounts) -> Vec<Row> {
        let mut rows: Vec<Row> = if !self.ids.is_empty() {
            // The ids were the index, so testing them again per row would only make this quadratic.
            let unindexed = Self {
                ids: Vec::new(),
                ..self.clone()
            };
            let found = self.ids.iter().filter_map(|id| accounts.find(id));
            found.filter(|&row| unindexed.admits(accounts.get(row))).collect()
        } else if !self.user_ids.is_empty() {
            let unindexed = Self {
                user_ids: Vec::new(),
                ..self.clone()
            };
            let found = self.user_ids.iter().flat_map(|user| accounts.of_user(user));
            found.filter(|&row| unindexed.admits(accounts.get(row))).collect()
        } else {
            accounts
                .rows()
                .filter(|&row| self.admits(accounts.get(row)))
                .collect()
        };
        // Rows are numbered in order of creation, which also settles ties.
        match self.order_by {
            OrderBy::CreatedAt => rows.sort_unstable(),
            OrderBy::UpdatedAt => rows.sort_unstable_by_key(|&row| (accounts.get(row).updated_at, row)),
        }
        rows.dedup();
        if !self.ascending {
            rows.reverse();
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::state::{account::NewAccount, lifecycle::Event};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// Three users with two accounts each, created second by second: u0/reddit, u0/slack, u1/reddit, ...
    fn store() -> (Accounts, Vec<String>) {
        let mut accounts = Accounts::default();
        let mut ids = Vec::new();
        for (second, (user, toolkit)) in ["u0", "u1", "u2"]
            .into_iter()
            .flat_map(|user| ["reddit", "slack"].map(|toolkit| (user, toolkit)))
            .enumerate()
        {
            let new = NewAccount {
                user_id: user.to_owned(),
                toolkit: toolkit.to_owned(),
                auth_config_id: format!("ac_{toolkit}"),
                auth_scheme: "OAUTH2".to_owned(),
                account_type: if user == "u2" {
                    AccountType::Shared
                } else {
                    AccountType::Private
                },
                ..NewAccount::default()
            };
            let row = accounts
                .create(new, true, at(i64::try_from(second).unwrap()))
                .unwrap();
            ids.push(accounts.get(row).id.clone());
        }
        (accounts, ids)
    }

    fn selected(accounts: &Accounts, ids: &[String], filter: &AccountFilter) -> Vec<usize> {
        let position = |row| ids.iter().position(|id| *id == accounts.get(row).id).unwrap();
        filter.select(accounts).into_iter().map(position).collect()
    }

    fn owned(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn filters_select_and_combine() {
        let (mut accounts, ids) = store();
        let row = accounts.find(&ids[1]).unwrap();
        accounts.apply(row, &Event::Denied, at(10)).unwrap();
        let everyone = || AccountFilter {
            account_type: None,
            ..AccountFilter::default()
        };
        let cases = [
            (AccountFilter::default(), vec![3, 2, 1, 0]),
            (everyone(), vec![5, 4, 3, 2, 1, 0]),
            (
                AccountFilter {
                    account_type: Some(AccountType::Shared),
                    ..everyone()
                },
                vec![5, 4],
            ),
            (
                AccountFilter {
                    user_ids: owned(&["u2", "u0", "nobody"]),
                    ..everyone()
                },
                vec![5, 4, 1, 0],
            ),
            (
                AccountFilter {
                    toolkits: owned(&["reddit"]),
                    ..everyone()
                },
                vec![4, 2, 0],
            ),
            (
                AccountFilter {
                    auth_config_ids: owned(&["ac_slack"]),
                    ..everyone()
                },
                vec![5, 3, 1],
            ),
            (
                AccountFilter {
                    statuses: vec![AccountStatus::Failed],
                    ..everyone()
                },
                vec![1],
            ),
            (
                AccountFilter {
                    user_ids: owned(&["u0"]),
                    toolkits: owned(&["slack"]),
                    ..everyone()
                },
                vec![1],
            ),
            (
                AccountFilter {
                    ascending: true,
                    ..AccountFilter::default()
                },
                vec![0, 1, 2, 3],
            ),
            (
                AccountFilter {
                    order_by: OrderBy::UpdatedAt,
                    ..AccountFilter::default()
                },
                vec![1, 3, 2, 0],
            ),
        ];
        for (filter, expected) in cases {
            assert_eq!(selected(&accounts, &ids, &filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn an_id_asked_for_twice_is_shown_once_and_a_deleted_one_never() {
        let (mut accounts, ids) = store();
        let filter = AccountFilter {
            ids: vec![
                ids[0].clone(),
                ids[2].clone(),
                ids[0].clone(),
                "ca_unknown".to_owned(),
            ],
            ..AccountFilter::default()
        };
        assert_eq!(selected(&accounts, &ids, &filter), [2, 0]);
        let row = accounts.find(&ids[2]).unwrap();
        accounts.delete(row, false, at(20));
        assert_eq!(selected(&accounts, &ids, &filter), [0]);
    }

    #[test]
    fn a_hundred_ids_are_found_among_ten_thousand_accounts() {
        let mut accounts = Accounts::default();
        let ids: Vec<_> = (0..10_000)
            .map(|n| {
                let new = NewAccount {
                    user_id: format!("u{n}"),
                    ..NewAccount::default()
                };
                let row = accounts.create(new, true, at(n)).unwrap();
                accounts.get(row).id.clone()
            })
            .collect();
        let wanted: Vec<_> = ids.iter().step_by(100).cloned().collect();
        let filter = AccountFilter {
            ids: wanted.clone(),
            ascending: true,
            ..AccountFilter::default()
        };
        let shown: Vec<_> = filter
            .select(&accounts)
            .into_iter()
            .map(|row| accounts.get(row).id.clone())
            .collect();
        assert_eq!(shown, wanted);
    }
}
