//! A small world around the pure phases: Composio's accounts, one Secret, one object. Passes run in it with crashes and
//! lost answers at every possible point, and whatever happened, the end must be the one without faults.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::fixtures::{AUTH_CONFIG, account, at, auth_config, object, requested};
use super::identity::Identity;
use super::observed::{AccountView, LinkSecret, Observed, Subject, attempt_of};
use super::plan::{self, Step};
use super::status::{Acted, Disposal, Published, next_status};
use crate::api::RedditConnection;
use crate::api::conditions::kstatus_violation;
use crate::api::reddit_connection::{ConnectionState, FINALIZER};
use crate::composio::{Account, AccountStatus};
use crate::controllers::failure::{Failure, Reason};

/// What goes wrong around one step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chaos {
    /// Nothing.
    Calm,
    /// The operator dies before the step.
    DiesBefore,
    /// The operator dies after the remote effect, before anything is stored.
    DiesAfterEffect,
    /// The operator dies after the step, before the status is written.
    DiesBeforeStatus,
    /// The effect happens, the answer does not arrive.
    AnswerLost,
    /// The call fails without effect.
    Fails,
    /// The call is refused, and only a person can mend that.
    Refused,
}

/// What happens between passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Happening {
    Opens,
    Consents,
    Denies,
    LinkExpires,
    AskedFor,
    SecretDeleted,
    StatusLost,
    Later,
}

struct World {
    object: Option<RedditConnection>,
    accounts: BTreeMap<String, Account>,
    created: u32,
    secret: LinkSecret,
    now: Timestamp,
    tokens: u32,
}

enum Pass {
    Rested,
    Died,
}

impl World {
    fn new() -> Self {
        let mut object = object(&json!({}), &json!({}));
        object.metadata.finalizers = None;
        Self {
            object: Some(object),
            accounts: BTreeMap::new(),
            created: 0,
            // The object is made anew, right after one of the same name was deleted.
            secret: LinkSecret::Leftover,
            now: at(0),
            tokens: 0,
        }
    }

    fn observed(&self, subject: &Subject<'_>) -> Observed {
        let account = match subject.account_id() {
            Some(id) if !subject.deleting => match self.accounts.get(id) {
                Some(account) => AccountView::Found(account.clone()),
                None => AccountView::Gone,
            },
            _ => AccountView::None,
        };
        let asked = plan::inquiries(subject, &account, self.now);
        Observed {
            inventory: asked.inventory.then(|| self.accounts.values().cloned().collect()),
            auth_configs: asked.auth_configs.then(|| vec![auth_config(AUTH_CONFIG, true)]),
            link_secret: asked.link_secret.then(|| self.secret.clone()),
            account,
            ..Observed::default()
        }
    }

    /// One pass; `chaos` says what goes wrong around each step.
    fn pass(&mut self, mut chaos: impl FnMut() -> Chaos) -> Pass {
        for _ in 0..24 {
            let Some(object) = self.object.clone() else {
                return Pass::Rested;
            };
            let subject = Subject::from(&object);
            let observed = self.observed(&subject);
            let plan = plan::plan(&subject, &observed, self.now);
            let weather = if plan.step.is_some() { chaos() } else { Chaos::Calm };
            if weather == Chaos::DiesBefore {
                return Pass::Died;
            }
            let acted = match &plan.step {
                None => Acted::Nothing,
                Some(_) if weather == Chaos::Fails => {
                    Acted::Failed(Failure::transient(Reason::ComposioUnavailable, "down"))
                }
                Some(_) if weather == Chaos::Refused => {
                    Acted::Failed(Failure::stalled(Reason::LinkRefused, "no"))
                }
                Some(step) => self.run(&subject, step, weather),
            };
            if matches!(weather, Chaos::DiesAfterEffect | Chaos::DiesBeforeStatus) {
                return Pass::Died;
            }
            let acted = match (weather, &plan.step) {
                (Chaos::AnswerLost, Some(step)) if step.is_remote_change() => {
                    Acted::Failed(Failure::transient(Reason::ComposioUnavailable, "no answer"))
                }
                _ => acted,
            };
            if let Some(object) = &mut self.object {
                let status = next_status(&subject, &observed, &plan, &acted, self.now);
                if !status.conditions.is_empty() {
                    assert_eq!(kstatus_violation(&status.conditions), None, "{status:#?}");
                }
                assert!(serde_json::to_vec(&status).unwrap().len() < 8 * 1024);
                object.status = Some(status);
            }
            if plan.step.is_none() || matches!(acted, Acted::Failed(_)) {
                return Pass::Rested;
            }
        }
        panic!("no end of steps: {:#?}", self.object);
    }

    fn run(&mut self, subject: &Subject<'_>, step: &Step, weather: Chaos) -> Acted {
        match step {
            Step::AddFinalizer => {
                self.object.as_mut().unwrap().metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
                Acted::Done
            }
            Step::RemoveFinalizer { abandoned } => {
                assert_eq!(*abandoned, None);
                self.object = None;
                Acted::Done
            }
            Step::BeginLink {
                attempt,
                auth_config_id,
                renewal,
                replaces: _,
            } => Acted::Begun {
                attempt: *attempt,
                auth_config_id: auth_config_id.clone(),
                renewal: *renewal,
            },
            Step::RecoverAttempt { attempt } => Acted::Recovered { attempt: *attempt },
            Step::RenewIntent => Acted::IntentRenewed,
            Step::PrepareLinkSecret => {
                self.secret = holding(None);
                Acted::Done
            }
            Step::CreateLink { alias, .. } => {
                if self
                    .accounts
                    .values()
                    .any(|account| account.alias.as_ref() == Some(alias))
                {
                    return Acted::Failed(Failure::transient(Reason::AliasTaken, "taken"));
                }
                assert!(
                    !self
                        .accounts
                        .values()
                        .any(|a| attempt_of(subject.uid, a.alias.as_deref().unwrap()).is_some()),
                    "a second account is made: {:#?}",
                    self.accounts
                );
                self.created += 1;
                let id = format!("ca_{}", self.created);
                self.accounts.insert(
                    id.clone(),
                    account(&id, AccountStatus::Initializing, Some(alias.clone())),
                );
                if !matches!(weather, Chaos::DiesAfterEffect | Chaos::AnswerLost) {
                    self.secret = holding(Some(&id));
                }
                let published = Published::Secret(subject.link_secret_name());
                Acted::LinkCreated {
                    account_id: id,
                    expires_at: None,
                    published,
                }
            }
            Step::Adopt {
                account,
                expires_at,
                secret_name,
            } => Acted::Adopted {
                account: account.clone(),
                expires_at: *expires_at,
                secret_name: secret_name.clone(),
            },
            Step::DeleteAccount { id, role, .. } => {
                self.accounts.remove(id);
                Acted::Deleted {
                    role: *role,
                    outcome: Disposal::Deleted,
                }
            }
            Step::SetEnabled { id, enabled } => {
                let account = self.accounts.get_mut(id).unwrap();
                account.status = if *enabled {
                    AccountStatus::Active
                } else {
                    AccountStatus::Inactive
                };
                Acted::EnabledSet { enabled: *enabled }
            }
            Step::DeleteLeftoverSecret => {
                self.secret = LinkSecret::Absent;
                Acted::Done
            }
            Step::DeleteLinkSecret => {
                self.secret = LinkSecret::Absent;
                Acted::LinkSecretDeleted
            }
            Step::Identify { .. } => Acted::Identified(Identity::Known {
                display_name: "alice".to_owned(),
                avatar_url: Some("https://i.redd.it/a.png".to_owned()),
            }),
            Step::Refresh { .. } => Acted::Refreshed,
        }
    }

    fn happens(&mut self, happening: Happening) {
        let pending = self
            .accounts
            .values_mut()
            .find(|account| account.status.is_pending());
        match (happening, pending) {
            (Happening::Opens, Some(account)) => account.status = AccountStatus::Initiated,
            (Happening::Consents, Some(account)) => account.status = AccountStatus::Active,
            (Happening::Denies, Some(account)) => account.status = AccountStatus::Failed,
            (Happening::LinkExpires, Some(account)) => {
                account.status = AccountStatus::Expired;
                account.status_reason =
                    Some("Connection initiation did not complete within 10 minutes".to_owned());
                self.now += std::time::Duration::from_mins(10);
            }
            (Happening::AskedFor, _) => {
                self.tokens += 1;
                self.object = self
                    .object
                    .take()
                    .map(|object| requested(object, &format!("t{}", self.tokens)));
            }
            (Happening::SecretDeleted, _) => self.secret = LinkSecret::Absent,
            (Happening::StatusLost, _) => self.object.as_mut().unwrap().status = None,
            (Happening::Later, _) => self.now += std::time::Duration::from_secs(400),
            _ => {}
        }
    }

    /// Passes without faults until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..20 {
            let before = self.object.clone();
            self.now += std::time::Duration::from_secs(400);
            self.pass(|| Chaos::Calm);
            if self.object == before {
                return;
            }
        }
        panic!("never settles: {:#?}", self.object);
    }

    fn state(&self) -> Option<ConnectionState> {
        self.object.as_ref()?.status.as_ref()?.state
    }
}

fn chaos() -> impl Strategy<Value = Chaos> {
    prop_oneof![
        3 => Just(Chaos::Calm),
        1 => Just(Chaos::DiesBefore),
        1 => Just(Chaos::DiesAfterEffect),
        1 => Just(Chaos::DiesBeforeStatus),
        1 => Just(Chaos::AnswerLost),
        1 => Just(Chaos::Fails),
    ]
}

/// The same, and refusals, after which somebody has to ask again.
fn chaos_and_refusals() -> impl Strategy<Value = Chaos> {
    prop_oneof![5 => chaos(), 1 => Just(Chaos::Refused)]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::Opens),
        Just(Happening::Consents),
        Just(Happening::Denies),
        Just(Happening::LinkExpires),
        Just(Happening::AskedFor),
        Just(Happening::SecretDeleted),
        Just(Happening::StatusLost),
        Just(Happening::Later),
    ]
}

fn holding(account_id: Option<&str>) -> LinkSecret {
    LinkSecret::Ours {
        account_id: account_id.map(str::to_owned),
        expires_at: None,
    }
}

fn live(world: &World) -> usize {
    world.accounts.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever crashed on the way, one account waits for its person, and its link is at hand.
    #[test]
    fn crashes_on_the_way_to_a_link_leave_one_account(weather in prop::collection::vec(chaos(), 0..60)) {
        let mut world = World::new();
        let mut weather = weather.into_iter();
        for _ in 0..30 {
            world.pass(|| weather.next().unwrap_or(Chaos::Calm));
            world.now += std::time::Duration::from_secs(7);
        }
        world.settle();
        prop_assert_eq!(live(&world), 1, "{:#?}", world.accounts);
        prop_assert_eq!(world.state(), Some(ConnectionState::Pending));
        let id = world.accounts.keys().next().cloned();
        prop_assert_eq!(&world.object.as_ref().unwrap().status.as_ref().unwrap().connected_account_id, &id);
        prop_assert_eq!(world.secret, holding(id.as_deref()));
    }

    /// People and crashes in any order: never two accounts, never an endless loop, always kstatus, always an end.
    #[test]
    fn people_and_crashes_in_any_order_never_make_two_accounts(
        events in prop::collection::vec((prop::option::of(happening()), prop::collection::vec(chaos_and_refusals(), 0..8)), 0..25)
    ) {
        let mut world = World::new();
        for (happening, weather) in events {
            if let Some(happening) = happening {
                world.happens(happening);
            }
            let mut weather = weather.into_iter();
            world.pass(|| weather.next().unwrap_or(Chaos::Calm));
            prop_assert!(live(&world) <= 2, "{:#?}", world.accounts);
            world.now += std::time::Duration::from_secs(3);
        }
        world.settle();
        prop_assert!(live(&world) <= 1, "{:#?}", world.accounts);
        // And a person who asks for a link, gets one, and finishes it is connected, whatever was before.
        world.happens(Happening::AskedFor);
        world.settle();
        world.happens(Happening::Consents);
        world.settle();
        prop_assert_eq!(world.state(), Some(ConnectionState::Connected));
        prop_assert_eq!(live(&world), 1);
        prop_assert_eq!(&world.secret, &LinkSecret::Absent);
        // A settled object is left alone.
        let before = world.object.clone();
        prop_assert!(matches!(world.pass(|| panic!("a step for a settled object")), Pass::Rested));
        prop_assert_eq!(&world.object, &before);
    }

    /// Deletion at any moment, with crashes, leaves nothing at Composio and lets the object go.
    #[test]
    fn deletion_at_any_moment_leaves_nothing_behind(
        before in prop::collection::vec(chaos(), 0..12),
        consents in any::<bool>(),
        after in prop::collection::vec(chaos(), 0..12),
    ) {
        let mut world = World::new();
        let mut weather = before.into_iter();
        for _ in 0..6 {
            world.pass(|| weather.next().unwrap_or(Chaos::Calm));
            world.now += std::time::Duration::from_secs(3);
        }
        if consents {
            world.happens(Happening::Consents);
        }
        world.object = world.object.take().map(super::fixtures::deleted);
        let mut weather = after.into_iter();
        for _ in 0..12 {
            world.pass(|| weather.next().unwrap_or(Chaos::Calm));
            world.now += std::time::Duration::from_mins(1);
        }
        for _ in 0..10 {
            world.now += std::time::Duration::from_secs(400);
            world.pass(|| Chaos::Calm);
        }
        prop_assert_eq!(live(&world), 0, "{:#?}", world.accounts);
        prop_assert!(world.object.is_none_or(|object| object.metadata.finalizers.is_none()));
    }
}
