//! After the story: everything stays up, for whoever wants to try it.

use anyhow::Result;

use super::connection;
use super::narrator::Narrator;
use super::schemas;
use super::stage::{NAMESPACE, Stage};

/// Applies the example again, says what can be tried, and never returns but with an error.
pub async fn give(stage: &Stage, narrator: &Narrator) -> Result<()> {
    narrator.command(&format!("kubectl apply -f {}", connection::EXAMPLE));
    narrator.output(&stage.apply(connection::EXAMPLE).await?);
    narrator.say(&format!(
        r#"They are yours now, {name} and the schemas. In another terminal:

   export KUBECONFIG={kubeconfig}
   export PATH="{path}:$PATH"
   SIM={composio}

   Connect in your browser       kubectl get secret {name}-link -o jsonpath='{{.data.url}}' | base64 -d
   Watch it                      kubectl get rdc --watch
   Let the link expire           curl -s -d '{{"seconds": 601}}' $SIM/_sim/clock/advance
                                 (a new link follows by itself, three times at most; the clock is Composio's)
   Ask for work now              kubectl annotate rdc {name} composio-operator.dev/requested-at="$(date +%s)" --overwrite
   Revoke the account            curl -s -X POST $SIM/_sim/accounts/$(kubectl get rdc {name} -o jsonpath='{{.status.connectedAccountId}}')/revoke
                                 (ask for work once to have it noticed now, and once more for a new link)
   Composio down, ten calls      curl -s -d '{{"rules": [{{"count": 10, "fault": {{"kind": "status", "status": 503}}}}]}}' $SIM/_sim/faults
   Lose the answer of a create   curl -s -d '{{"rules": [{{"method": "POST", "path": "/connected_accounts/link", "fault": {{"kind": "dropAfterCommit"}}}}]}}' $SIM/_sim/faults
                                 (then let the link expire: the account behind the lost answer is found by its alias)
   See every call                curl -s $SIM/_sim/log
   Conditions and events         kubectl describe rdc {name}
   Read the list of schemas      kubectl get cm {manifest} -o jsonpath='{{.data.manifest\.json}}'
   Another toolkit changes       curl -s -d '{{"add": 1}}' $SIM/_sim/toolkits/hackernews/release
                                 kubectl annotate csc {cache} composio-operator.dev/requested-at="$(date +%s)" --overwrite
   Somebody spoils a ConfigMap   kubectl patch cm {schemas} --type=merge -p '{{"data": {{"tools.json": "[]"}}}}'
                                 (repaired within seconds)
   What is refused               kubectl patch rdc {name} --type=merge -p '{{"spec": {{"userId": "mallory"}}}}'
   Who leads                     kubectl get lease -n {namespace}

Logs are in {logs}. Ctrl-C stops everything and removes it."#,
        kubeconfig = stage.plane.kubeconfig_path().display(),
        path = stage.path()?.display(),
        composio = stage.composio,
        name = connection::NAME,
        cache = schemas::NAME,
        manifest = schemas::MANIFEST,
        schemas = schemas::CHANGING_MAP,
        namespace = NAMESPACE,
        logs = stage.plane.logs_directory().display(),
    ));
    std::future::pending().await
}
