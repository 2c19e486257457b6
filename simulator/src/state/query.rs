//! Which accounts a list shows, in which order.

use strum::{EnumString, VariantNames};

use super::{
    account::{Account, AccountType},
    accounts::{Accounts, Row},
    lifecycle::AccountStatus,
};

/// The time a list is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "snake_case")]
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
