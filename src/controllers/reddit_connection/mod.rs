//! The controller of `RedditConnection`.

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod act;
#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests")]
mod crash_tests;
mod events;
#[cfg(test)]
mod fixtures;
mod identity;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod link_secret;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod look_ups;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "I/O")]
mod observe;
mod observed;
mod phase;
mod plan;
mod status;
#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests")]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

pub use self::look_ups::LookUps;
use self::observe::Handles;
pub use self::observed::Proofs;
use self::observed::{LookUp, Observed, View, attempt_of};
use self::phase::{Phase, Summary};
use self::plan::{Plan, Step};
use self::status::Effect;
use super::access::Access;
use super::auth_configs::AuthConfigs;
use crate::api::reddit_connection::{
    CONNECTED, DeletionPolicy, FINALIZER, REAUTH_REQUIRED, RedditConnection, RedditConnectionStatus,
};
use crate::runtime::events::Announcement;
use crate::runtime::failure::Failure;
use crate::runtime::summary::Change;
use crate::runtime::wake_ups::ObjectKey;
use crate::runtime::{Context, Controller, Turn};

/// The controller of `RedditConnection`.
pub struct RedditConnections {
    /// The way to Composio.
    pub access: Arc<Access>,
    /// Auth configs listed lately.
    pub auth_configs: AuthConfigs,
    /// Version of the Reddit toolkit that tools are run with.
    pub toolkit_version: String,
    /// Identity look-ups under way.
    pub look_ups: LookUps,
    /// When the credentials of connected accounts are proven again.
    pub proofs: Proofs,
}

impl Controller for RedditConnections {
    type Object = RedditConnection;
    type Observed = Observed;
    type Handles = Handles;
    type Step = Step;
    type Phase = Phase;
    type Effect = Effect;

    const NAME: &'static str = "redditconnection";
    const FINALIZER: Option<&'static str> = Some(FINALIZER);
    const CONDITIONS: &'static [&'static str] = &[CONNECTED, REAUTH_REQUIRED];

    async fn observe(
        &self,
        cx: &Context,
        object: &RedditConnection,
        now: Timestamp,
    ) -> Result<(Observed, Handles), Failure> {
        observe::observe(self, cx, &View::from(object), now).await
    }

    fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
        plan::plan(view, observed, now)
    }

    async fn act(
        &self,
        cx: &Context,
        object: &RedditConnection,
        _observed: &Observed,
        step: &Step,
        connection: &Handles,
    ) -> Result<Effect, Failure> {
        // Every step but those that are only records waits for Composio, or briefly for Kubernetes.
        cx.slots.wait(act::act(self, cx, object, step, connection)).await
    }

    fn status(turn: &Turn<'_, Self>) -> RedditConnectionStatus {
        status::status(turn)
    }

    fn summary(turn: &Turn<'_, Self>, status: &RedditConnectionStatus) -> Option<Summary> {
        status::summary(turn, status)
    }

    fn events(change: &Change<'_, Self>) -> Vec<Announcement> {
        events::of_change(change)
    }

    fn events_of_release(view: &View<'_>) -> Vec<Announcement> {
        events::of_release(view)
    }

    fn carry_over(
        observed: Observed,
        connection: Handles,
        step: &Step,
        effect: &Effect,
    ) -> Option<(Observed, Handles)> {
        Some((observed.after(step, effect)?, connection))
    }

    /// A late answer must not put the link of an attempt on record that was given up meanwhile.
    fn still_concerns(step: &Step, current: &RedditConnection) -> bool {
        let Step::CreateLink { alias, .. } = step else {
            return true;
        };
        let view = View::from(current);
        attempt_of(view.uid, alias) == Some(view.status.link_attempts)
            && view.status.connected_account_id.is_none()
    }

    fn remember(&self, turn: &Turn<'_, Self>) {
        // What was found and asks for no step is known by now.
        if turn.step.is_none() && matches!(turn.observed.look_up, LookUp::Found { .. }) {
            self.look_ups.end(&turn.view.key(Self::NAME));
        }
    }

    fn needs_finalizer(view: &View<'_>) -> bool {
        view.deletion_policy() != DeletionPolicy::Retain
    }

    fn on_suspended(&self, key: &ObjectKey) {
        self.access.unfollow(key, None);
        self.look_ups.forget(key);
    }

    fn on_deleted(&self, key: &ObjectKey, uid: &str) {
        self.access.forget(key, uid);
        self.look_ups.forget(key);
    }

    fn on_relisted(&self, exists: &dyn Fn(&ObjectKey) -> bool) {
        self.access.retain(exists);
        self.look_ups.retain(exists);
    }
}
