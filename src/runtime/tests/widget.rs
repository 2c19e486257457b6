//! A third controller, as small as one can be: a widget stands for one item in a store outside the cluster.

use std::collections::BTreeSet;
use std::sync::Mutex;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::api::common::{RetryStatus, managed_fields};
use crate::runtime::failure::Failure;
use crate::runtime::plan::{Plan, Position};
use crate::runtime::summary::Summary;
use crate::runtime::view::View;
use crate::runtime::wake_ups::ObjectKey;
use crate::runtime::{Context, Controller, Effect, Phase, Step, Turn};

#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "test.dev",
    version = "v1",
    kind = "Widget",
    namespaced,
    status = "WidgetStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct WidgetSpec {
    pub item: String,
    #[serde(default)]
    pub suspend: bool,
}

#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WidgetStatus {
    pub observed_generation: Option<i64>,
    pub state: Option<WidgetState>,
    pub last_handled_request_at: Option<String>,
    pub retry: Option<RetryStatus>,
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The item that was stored for this widget.
    pub stored: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, IntoStaticStr, JsonSchema, PartialEq, Serialize, VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum WidgetState {
    Stored,
}

managed_fields!(WidgetSpec, WidgetStatus, WidgetState);

/// What the store does with the next call.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Store {
    #[default]
    Works,
    Fails(Failure),
    Hangs,
    Panics,
    /// Says that it did, and did not.
    Lies,
}

#[derive(Default)]
pub struct Widgets {
    pub items: Mutex<BTreeSet<String>>,
    pub store: Mutex<Store>,
    pub calls: Mutex<Vec<WidgetStep>>,
    /// Every widget that was reconciled.
    pub known: Mutex<Vec<ObjectKey>>,
    pub deleted: Mutex<Vec<String>>,
}

#[derive(Clone, Debug, IntoStaticStr, PartialEq)]
pub enum WidgetStep {
    Put(String),
    Remove(String),
}

impl Step for WidgetStep {
    fn name(&self) -> &'static str {
        self.into()
    }

    fn is_external(&self) -> bool {
        true
    }

    fn must_be_recorded(&self) -> bool {
        matches!(self, Self::Put(_))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stored;

impl Phase for Stored {}

/// The item that was put; None if one was removed.
#[derive(Debug)]
pub struct Put(Option<String>);

impl Effect for Put {}

impl Controller for Widgets {
    type Object = Widget;
    /// Whether the item is in the store.
    type Observed = bool;
    type Handles = ();
    type Step = WidgetStep;
    type Phase = Stored;
    type Effect = Put;

    const NAME: &'static str = "widget";
    const FINALIZER: Option<&'static str> = Some("test.dev/store");

    async fn observe(&self, _: &Context, widget: &Widget, _: Timestamp) -> Result<(bool, ()), Failure> {
        self.known
            .lock()
            .unwrap()
            .push(ObjectKey::new(Self::NAME, widget));
        Ok((self.items.lock().unwrap().contains(&widget.spec.item), ()))
    }

    fn plan(view: &View<'_, Widget>, is_stored: &bool, _: Timestamp) -> Plan<WidgetStep, Stored> {
        let item = view.spec.item.clone();
        match (view.deleting, is_stored) {
            (true, true) => Plan::step(WidgetStep::Remove(item), Position::Unchanged),
            (true, false) => Plan::rest(Position::Unchanged),
            (false, true) => Plan::rest(Stored),
            (false, false) => Plan::step(WidgetStep::Put(item), Position::Unchanged),
        }
    }

    async fn act(
        &self,
        _: &Context,
        _: &Widget,
        _: &bool,
        step: &WidgetStep,
        (): &(),
    ) -> Result<Put, Failure> {
        self.calls.lock().unwrap().push(step.clone());
        let store = self.store.lock().unwrap().clone();
        match store {
            Store::Works => {}
            Store::Fails(failure) => return Err(failure),
            Store::Hangs => std::future::pending().await,
            Store::Panics => panic!("the store is a bug"),
            Store::Lies => return Ok(Put(None)),
        }
        let mut items = self.items.lock().unwrap();
        Ok(match step {
            WidgetStep::Put(item) => {
                items.insert(item.clone());
                Put(Some(item.clone()))
            }
            WidgetStep::Remove(item) => {
                items.remove(item);
                Put(None)
            }
        })
    }

    fn status(turn: &Turn<'_, Self>) -> WidgetStatus {
        let mut status = turn.view.status.clone().into_owned();
        status.stored = turn.effect.and_then(|put| put.0.clone()).or(status.stored);
        status
    }

    fn summary(turn: &Turn<'_, Self>, _: &WidgetStatus) -> Option<Summary<WidgetState>> {
        match turn.position {
            Position::Unchanged => None,
            Position::Failed(failure) => Some(Summary::failure(failure)),
            Position::At(Stored) => {
                Some(Summary::ready("Stored", "the item is stored").with_state(WidgetState::Stored))
            }
        }
    }

    fn on_deleted(&self, key: &ObjectKey, _: &str) {
        self.deleted.lock().unwrap().push(key.name.clone());
    }

    fn on_relisted(&self, exists: &dyn Fn(&ObjectKey) -> bool) {
        let known = self.known.lock().unwrap();
        let gone = known.iter().filter(|key| !exists(key));
        self.deleted
            .lock()
            .unwrap()
            .extend(gone.map(|key| key.name.clone()));
    }
}
