//! The real reconcile loop and the real decisions, in a small world: Composio's accounts and one Secret are a model, and the
//! API server is in memory. The operator crashes and loses answers at every possible point, and whatever happened, the end
//! must be the one without faults.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::Notify;

use super::fixtures::{AUTH_CONFIG, NAME, account, at, auth_config, object};
use super::identity::Identity;
use super::observed::{AccountView, LinkSecret, LookUp, Observed, View};
use super::phase::{Phase, Summary};
use super::plan::{self, DeletionTarget, Plan, Step};
use super::status::{DeletionOutcome, Effect, Published};
use super::{RedditConnectionStatus, RedditConnections};
use crate::api::conditions::{READY, find, kstatus_violation};
use crate::api::reddit_connection::{ConnectionState, LinkPublication};
use crate::api::{REQUESTED_AT_ANNOTATION, Reason, RedditConnection};
use crate::composio::{Account, AccountStatus};
use crate::runtime::failure::Failure;
use crate::runtime::reconcile::reconcile;
use crate::runtime::testing::{self, ApiServer, ManualClock};
use crate::runtime::{Context, Controller, Step as _, Turn};

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
    /// The call is refused, and only a person can fix that.
    Refused,
    /// The answer does not arrive, and an account that was to be made appears only later.
    CommitsLate,
}

/// How long after the call a late account appears.
const LATE: Duration = Duration::from_secs(45);

/// How long lists may lag behind.
const LAG: Duration = Duration::from_secs(20);

/// What happens between reconciles.
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
    /// The next lists of accounts show what was true a moment ago.
    ListsLag,
    Disabled,
    Enabled,
    /// Somebody else than who connected is expected, or nobody in particular.
    ExpectsBob,
    ExpectsNobody,
    PublishedInStatus,
    PublishedInSecret,
}

impl Happening {
    /// The change of the spec, if it is one.
    fn edit(self) -> Option<(&'static str, serde_json::Value)> {
        Some(match self {
            Self::Disabled => ("enabled", json!(false)),
            Self::Enabled => ("enabled", json!(true)),
            Self::ExpectsBob => ("expectedUsername", json!("bob")),
            Self::ExpectsNobody => ("expectedUsername", json!(null)),
            Self::PublishedInStatus => ("link", json!({"publish": "Status"})),
            Self::PublishedInSecret => ("link", json!({"publish": "Secret"})),
            _ => return None,
        })
    }
}

/// What is outside the cluster, and the Secret.
struct Outside {
    accounts: BTreeMap<String, Account>,
    /// Accounts that appear later, and when.
    late: Vec<(Timestamp, Account)>,
    /// What lists show until then.
    stale: Option<(Timestamp, Vec<Account>)>,
    created: usize,
    deleted: usize,
    /// Until then accounts are made, and the answers say that they were not.
    lies_until: Timestamp,
    look_up: LookUp,
    secret: LinkSecret,
    chaos: VecDeque<Chaos>,
    steps: usize,
}

/// The controller with a model of the outside in place of its I/O.
struct Model {
    outside: Mutex<Outside>,
    died: Notify,
}

impl Controller for Model {
    type Object = RedditConnection;
    type Observed = Observed;
    type Handles = ();
    type Step = Step;
    type Phase = Phase;
    type Effect = Effect;

    const NAME: &'static str = RedditConnections::NAME;
    const FINALIZER: Option<&'static str> = RedditConnections::FINALIZER;
    const CONDITIONS: &'static [&'static str] = RedditConnections::CONDITIONS;

    async fn observe(
        &self,
        _cx: &Context,
        object: &RedditConnection,
        now: Timestamp,
    ) -> Result<(Observed, ()), Failure> {
        let view = View::from(object);
        let mut outside = self.outside.lock().unwrap();
        outside.commit_late(now);
        let account = match view.account_id() {
            Some(id) if !view.deleting => match outside.accounts.get(id) {
                Some(account) => AccountView::Found(account.clone()),
                None => AccountView::NotFound,
            },
            _ => AccountView::None,
        };
        let asked = plan::queries(&view, &account, now);
        let observed = Observed {
            user_accounts: asked.user_accounts.then(|| outside.list(now)),
            look_up: outside.look_up.clone(),
            auth_configs: asked.auth_configs.then(|| vec![auth_config(AUTH_CONFIG, true)]),
            link_secret: asked.link_secret.then(|| outside.secret.clone()),
            account,
            ..Observed::default()
        };
        Ok((observed, ()))
    }

    fn plan(view: &View<'_>, observed: &Observed, now: Timestamp) -> Plan {
        RedditConnections::plan(view, observed, now)
    }

    fn carry_over(observed: Observed, (): (), step: &Step, effect: &Effect) -> Option<(Observed, ())> {
        Some((observed.after(step, effect)?, ()))
    }

    fn still_concerns(step: &Step, current: &RedditConnection) -> bool {
        RedditConnections::still_concerns(step, current)
    }

    async fn act(
        &self,
        cx: &Context,
        object: &RedditConnection,
        _observed: &Observed,
        step: &Step,
        (): &(),
    ) -> Result<Effect, Failure> {
        let view = View::from(object);
        let (chaos, effect) = {
            let mut outside = self.outside.lock().unwrap();
            outside.steps += 1;
            let chaos = outside.chaos.pop_front().unwrap_or(Chaos::Calm);
            let effect = match chaos {
                Chaos::DiesBefore => None,
                Chaos::Fails => Some(Err(Failure::transient(Reason::ComposioUnavailable, "down"))),
                Chaos::Refused => Some(Err(Failure::stalled(Reason::LinkRefused, "no"))),
                _ => Some(outside.run(&view, step, chaos, cx.clock.now())),
            };
            (chaos, effect)
        };
        match (chaos, effect) {
            (Chaos::AnswerLost | Chaos::CommitsLate, Some(_)) if step.is_external() => {
                Err(Failure::transient(Reason::ComposioUnavailable, "no answer"))
            }
            (Chaos::DiesBefore | Chaos::DiesAfterEffect | Chaos::DiesBeforeStatus, _) | (_, None) => {
                self.died.notify_one();
                std::future::pending().await
            }
            (_, Some(effect)) => effect,
        }
    }

    fn status(turn: &Turn<'_, Self>) -> RedditConnectionStatus {
        RedditConnections::status(&real(turn))
    }

    fn summary(turn: &Turn<'_, Self>, status: &RedditConnectionStatus) -> Option<Summary> {
        RedditConnections::summary(&real(turn), status)
    }

    fn needs_finalizer(view: &View<'_>) -> bool {
        RedditConnections::needs_finalizer(view)
    }
}

fn real<'a>(turn: &Turn<'a, Model>) -> Turn<'a, RedditConnections> {
    Turn {
        view: turn.view,
        observed: turn.observed,
        step: turn.step,
        effect: turn.effect,
        position: turn.position,
        now: turn.now,
    }
}

impl Outside {
    /// Accounts whose creation was slow appear, unless their alias is taken by now.
    fn commit_late(&mut self, now: Timestamp) {
        let (due, late) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.late = late;
        for (_, account) in due {
            if !self.has_alias(account.alias.as_ref()) {
                self.accounts.insert(account.id.clone(), account);
            }
        }
    }

    fn has_alias(&self, alias: Option<&String>) -> bool {
        self.accounts
            .values()
            .any(|account| account.alias.as_ref() == alias)
    }

    fn list(&self, now: Timestamp) -> Vec<Account> {
        match &self.stale {
            Some((until, accounts)) if now < *until => accounts.clone(),
            _ => self.accounts.values().cloned().collect(),
        }
    }

    fn create(
        &mut self,
        view: &View<'_>,
        alias: &String,
        chaos: Chaos,
        now: Timestamp,
    ) -> Result<Effect, Failure> {
        if self.has_alias(Some(alias)) {
            return Err(Failure::transient(Reason::AliasTaken, "taken"));
        }
        self.created += 1;
        let id = format!("ca_{}", self.created);
        let made = account(&id, AccountStatus::Initializing, Some(alias.clone()));
        if chaos == Chaos::CommitsLate {
            self.late.push((now + LATE, made));
            return Ok(Effect::Done);
        }
        self.accounts.insert(id.clone(), made);
        if now < self.lies_until {
            return Err(Failure::transient(Reason::ComposioUnavailable, "502"));
        }
        let is_told = !matches!(chaos, Chaos::DiesAfterEffect | Chaos::AnswerLost);
        let published = match view.spec.link.publish {
            LinkPublication::Secret => {
                if is_told {
                    self.secret = holding(Some(&id));
                }
                Published::Secret(view.link_secret_name())
            }
            LinkPublication::Status => Published::Status("https://link.test/".to_owned()),
        };
        Ok(Effect::LinkCreated {
            account_id: id,
            expires_at: None,
            published,
        })
    }

    fn run(&mut self, view: &View<'_>, step: &Step, chaos: Chaos, now: Timestamp) -> Result<Effect, Failure> {
        Ok(match step {
            Step::BeginLink {
                attempt,
                auth_config_id,
                renewal,
                replaces: _,
            } => Effect::Begun {
                attempt: *attempt,
                auth_config_id: auth_config_id.clone(),
                renewal: *renewal,
            },
            Step::RecoverAttempt { attempt } => Effect::Recovered { attempt: *attempt },
            Step::RenewIntent => Effect::IntentRenewed,
            Step::PrepareLinkSecret => {
                self.secret = holding(None);
                Effect::Done
            }
            Step::CreateLink { alias, .. } => self.create(view, alias, chaos, now)?,
            Step::Adopt {
                account,
                expires_at,
                secret_name,
            } => Effect::Adopted {
                account: account.clone(),
                expires_at: *expires_at,
                secret_name: secret_name.clone(),
            },
            Step::DeleteAccount { id, target, .. } => {
                let outcome = match self.accounts.remove(id) {
                    None if *target == DeletionTarget::Orphan => {
                        return Err(Failure::transient(Reason::ChangeNotApplied, "still listed"));
                    }
                    None => DeletionOutcome::NotFound,
                    Some(_) => DeletionOutcome::Deleted,
                };
                self.deleted += usize::from(outcome == DeletionOutcome::Deleted);
                Effect::Deleted {
                    target: *target,
                    outcome,
                }
            }
            Step::SetEnabled { id, enabled } => {
                if let Some(account) = self.accounts.get_mut(id) {
                    account.status = if *enabled {
                        AccountStatus::Active
                    } else {
                        AccountStatus::Inactive
                    };
                }
                Effect::EnabledSet { enabled: *enabled }
            }
            Step::DeletePreviousSecret => {
                self.secret = LinkSecret::Absent;
                Effect::Done
            }
            Step::DeleteLinkSecret => {
                self.secret = LinkSecret::Absent;
                Effect::LinkSecretDeleted
            }
            Step::EndSearch => Effect::AllAnswered,
            Step::RecordDisabling => Effect::DisablingRecorded,
            Step::LookUpIdentity { .. } => {
                self.look_up = LookUp::Found {
                    identity: Identity::Known {
                        display_name: "alice".to_owned(),
                        avatar_url: Some("https://i.redd.it/a.png".to_owned()),
                    },
                    at: now,
                };
                Effect::LookUpStarted
            }
            Step::RecordIdentity { identity, at } => Effect::Identified {
                identity: identity.clone(),
                at: *at,
                is_proof_too_old: false,
            },
            Step::Refresh { .. } => Effect::Refreshed,
        })
    }
}

struct World {
    api: ApiServer,
    cx: Context,
    clock: ManualClock,
    model: Arc<Model>,
    runtime: tokio::runtime::Runtime,
    tokens: u32,
}

impl World {
    fn new() -> Self {
        let mut new = object(&json!({}), &json!({}));
        new.metadata.finalizers = None;
        new.status = None;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        // A client starts a task of its own.
        let _guard = runtime.enter();
        let api = ApiServer::new();
        api.create(&new);
        // Whatever is applied keeps the rules.
        api.intercept(|call| {
            if call.path.ends_with("/status") {
                let status = &call.body["status"];
                let conditions: Vec<_> =
                    serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
                assert!(
                    conditions.is_empty() || kstatus_violation(&conditions).is_none(),
                    "{status:#}"
                );
                assert!(status.to_string().len() < 8 * 1024);
            }
            None
        });
        let clock = ManualClock::at(at(0));
        let (cx, _) = testing::context(api.client(), clock.clock());
        let outside = Mutex::new(Outside {
            accounts: BTreeMap::new(),
            late: Vec::new(),
            stale: None,
            created: 0,
            deleted: 0,
            lies_until: Timestamp::MIN,
            look_up: LookUp::None,
            // The object is made anew, right after one of the same name was deleted.
            secret: LinkSecret::PreviousOwner,
            chaos: VecDeque::new(),
            steps: 0,
        });
        let model = Arc::new(Model {
            outside,
            died: Notify::new(),
        });
        Self {
            api,
            cx,
            clock,
            model,
            tokens: 0,
            runtime,
        }
    }

    fn object(&self) -> Option<RedditConnection> {
        self.api.get("team", NAME)
    }

    /// One reconcile; `chaos` says what goes wrong around its steps.
    fn reconcile(&self, chaos: impl IntoIterator<Item = Chaos>) {
        self.model.outside.lock().unwrap().chaos = chaos.into_iter().collect();
        let Some(object) = self.object() else { return };
        self.runtime.block_on(async {
            tokio::select! {
                ended = reconcile(&*self.model, &self.cx, object) => drop(ended.unwrap()),
                () = self.model.died.notified() => {}
            }
        });
    }

    fn happens(&mut self, happening: Happening) {
        if let Some((field, value)) = happening.edit() {
            let edit = |object: &mut serde_json::Value| object["spec"][field] = value;
            return self.api.edit::<RedditConnection>("team", NAME, edit);
        }
        let mut outside = self.model.outside.lock().unwrap();
        let mut accounts = outside.accounts.values_mut();
        let pending = accounts.find(|account| account.status.is_pending());
        match (happening, pending) {
            (Happening::Opens, Some(account)) => account.status = AccountStatus::Initiated,
            (Happening::Consents, Some(account)) => account.status = AccountStatus::Active,
            (Happening::Denies, Some(account)) => account.status = AccountStatus::Failed,
            (Happening::LinkExpires, Some(account)) => {
                account.status = AccountStatus::Expired;
                self.clock.advance(Duration::from_mins(10));
            }
            (Happening::SecretDeleted, _) => outside.secret = LinkSecret::Absent,
            (Happening::AskedFor, _) => {
                self.tokens += 1;
                let token = format!("t{}", self.tokens);
                self.api.edit::<RedditConnection>("team", NAME, |object| {
                    object["metadata"]["annotations"] = json!({ REQUESTED_AT_ANNOTATION: token });
                });
            }
            (Happening::StatusLost, _) => {
                // A backup is restored long after any call.
                outside.commit_late(Timestamp::MAX);
                outside.stale = None;
                let mut object: RedditConnection = self.api.get("team", NAME).unwrap();
                object.status = None;
                self.api.replace(&object);
            }
            (Happening::ListsLag, _) => {
                let accounts = outside.accounts.values().cloned().collect();
                outside.stale = Some((self.clock.now() + LAG, accounts));
            }
            (Happening::Later, _) => self.clock.advance(Duration::from_secs(400)),
            _ => {}
        }
    }

    /// Reconciles without faults until nothing changes any more.
    fn settle(&self) {
        for _ in 0..20 {
            let before = self.object();
            self.clock.advance(Duration::from_secs(400));
            self.reconcile([]);
            if self.object() == before {
                return;
            }
        }
        panic!("never settles: {:#?}", self.object());
    }

    fn status(&self) -> RedditConnectionStatus {
        self.object().unwrap().status.unwrap()
    }

    fn accounts(&self) -> Vec<String> {
        self.model
            .outside
            .lock()
            .unwrap()
            .accounts
            .keys()
            .cloned()
            .collect()
    }

    fn secret(&self) -> LinkSecret {
        self.model.outside.lock().unwrap().secret.clone()
    }

    fn steps(&self) -> usize {
        self.model.outside.lock().unwrap().steps
    }
}

fn chaos() -> impl Strategy<Value = Chaos> {
    prop_oneof![
        3 => Just(Chaos::Calm),
        1 => Just(Chaos::DiesBefore),
        1 => Just(Chaos::DiesAfterEffect),
        1 => Just(Chaos::DiesBeforeStatus),
        1 => Just(Chaos::AnswerLost),
        1 => Just(Chaos::CommitsLate),
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
        Just(Happening::ListsLag),
        Just(Happening::Disabled),
        Just(Happening::Enabled),
        Just(Happening::ExpectsBob),
        Just(Happening::ExpectsNobody),
        Just(Happening::PublishedInStatus),
        Just(Happening::PublishedInSecret),
    ]
}

fn holding(account_id: Option<&str>) -> LinkSecret {
    LinkSecret::Owned {
        account_id: account_id.map(str::to_owned),
        expires_at: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever crashed on the way, one account waits for its person, and its link is at hand.
    #[test]
    fn crashes_on_the_way_to_a_link_leave_one_account(
        weather in prop::collection::vec(prop::collection::vec(chaos(), 0..4), 0..20)
    ) {
        let world = World::new();
        for chaos in weather {
            world.reconcile(chaos);
            world.clock.advance(Duration::from_secs(7));
        }
        world.settle();
        let accounts = world.accounts();
        prop_assert_eq!(accounts.len(), 1, "{:#?}", accounts);
        let status = world.status();
        prop_assert_eq!(status.state, Some(ConnectionState::Pending));
        prop_assert_eq!(status.connected_account_id.as_ref(), accounts.first());
        prop_assert_eq!(world.secret(), holding(accounts.first().map(String::as_str)));
    }

    /// People and crashes in any order: never two accounts, never an endless loop, always kstatus, always an end.
    #[test]
    fn people_and_crashes_in_any_order_never_make_two_accounts(
        events in prop::collection::vec((prop::option::of(happening()), prop::collection::vec(chaos_and_refusals(), 0..8)), 0..20)
    ) {
        let mut world = World::new();
        for (happening, chaos) in events {
            if let Some(happening) = happening {
                world.happens(happening);
            }
            world.reconcile(chaos);
            prop_assert!(world.accounts().len() <= 2, "{:#?}", world.accounts());
            world.clock.advance(Duration::from_secs(3));
        }
        world.settle();
        // What is stalled searches for nothing until somebody acts.
        let is_stalled = world.status().retry.is_some();
        prop_assert!(world.accounts().len() <= if is_stalled { 2 } else { 1 }, "{:#?}", world.accounts());
        // And a person who asks for a link, gets one, and finishes it is connected, whatever was before.
        world.happens(Happening::Enabled);
        world.happens(Happening::ExpectsNobody);
        world.happens(Happening::AskedFor);
        world.settle();
        world.happens(Happening::Consents);
        world.settle();
        prop_assert_eq!(world.status().state, Some(ConnectionState::Connected));
        prop_assert_eq!(world.accounts().len(), 1);
        prop_assert!(!matches!(world.secret(), LinkSecret::Owned { .. }), "{:?}", world.secret());
        // A settled object is left alone.
        let (before, steps) = (world.object(), world.steps());
        world.reconcile([]);
        prop_assert_eq!((world.object(), world.steps()), (before, steps));
    }

    /// Deletion at any moment, with crashes, leaves nothing at Composio and lets the object go.
    #[test]
    fn deletion_at_any_moment_leaves_nothing_behind(
        before in prop::collection::vec(prop::collection::vec(chaos(), 0..4), 0..6),
        consents in any::<bool>(),
        after in prop::collection::vec(prop::collection::vec(chaos(), 0..4), 0..8),
    ) {
        let mut world = World::new();
        for chaos in before {
            world.reconcile(chaos);
            world.clock.advance(Duration::from_secs(3));
        }
        if consents {
            world.happens(Happening::Consents);
        }
        world.api.delete::<RedditConnection>("team", NAME);
        for chaos in after {
            world.reconcile(chaos);
            world.clock.advance(Duration::from_mins(1));
        }
        for _ in 0..10 {
            world.clock.advance(Duration::from_secs(400));
            world.reconcile([]);
        }
        prop_assert_eq!(world.accounts(), Vec::<String>::new());
        prop_assert!(world.object().is_none());
    }
}

/// Found as forty-one accounts in two minutes: the operator's own steps between the tries had ended the row of failures.
#[test]
fn a_link_that_fails_with_effect_is_tried_again_ever_more_slowly() {
    let world = World::new();
    world.model.outside.lock().unwrap().lies_until = at(120);
    let mut reasons = Vec::new();
    while world.clock.now() < at(120) {
        world.reconcile([]);
        let conditions = world.status().conditions;
        reasons.extend(find(&conditions, READY).map(|ready| ready.reason.clone()));
        world.clock.advance(Duration::from_secs(1));
    }
    reasons.dedup();
    assert_eq!(
        reasons,
        ["ComposioUnavailable"],
        "what failed stays on show between the tries"
    );
    let (created, deleted) = {
        let outside = world.model.outside.lock().unwrap();
        (outside.created, outside.deleted)
    };
    assert!(
        (3..=6).contains(&created) && deleted < created,
        "{created} made, {deleted} deleted"
    );
    world.settle();
    assert_eq!(world.accounts().len(), 1);
    assert_eq!(world.status().state, Some(ConnectionState::Pending));
}

/// Found as a second account of somebody whose list of accounts had lagged behind.
#[test]
fn a_list_that_lags_behind_makes_no_second_account() {
    let mut world = World::new();
    world.reconcile([Chaos::Calm, Chaos::DiesBefore]);
    world.happens(Happening::ListsLag);
    world.reconcile([Chaos::Calm, Chaos::Calm, Chaos::AnswerLost]);
    for _ in 0..60 {
        world.clock.advance(Duration::from_secs(1));
        world.reconcile([]);
    }
    let outside = world.model.outside.lock().unwrap();
    assert_eq!(
        (outside.created, outside.accounts.len()),
        (2, 1),
        "one, and the one whose link was lost"
    );
}
