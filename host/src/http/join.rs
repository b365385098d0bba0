//! Finding a member by the address that somebody was given: that of its HTTP door, or that for other nodes.

use std::time::Duration;

use serde_json::Value;

/// Time for a node to say who it is. One that takes other nodes or Redis clients at the address closes or answers at once.
const WITHIN: Duration = Duration::from_secs(3);

/// The address for other nodes of the node at `address`, which may be that of its HTTP door.
pub async fn peer_address(address: &str) -> String {
    let given = address
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let url = format!("http://{given}/v1/cluster");
    let asked = tokio::task::spawn_blocking(move || ask(&url)).await;
    // What does not speak HTTP is for other nodes, or for nobody, which the next step finds out.
    asked.ok().flatten().unwrap_or(given)
}

fn ask(url: &str) -> Option<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(WITHIN))
        .build()
        .into();
    let cluster: Value = agent.get(url).call().ok()?.body_mut().read_json().ok()?;
    let name = cluster.get("as_seen_by")?.as_str()?;
    let members = cluster.get("members")?.as_array()?;
    let own = members
        .iter()
        .find(|member| member.get("name").and_then(Value::as_str) == Some(name))?;
    let peer = own.get("addresses")?.get("peer")?.as_str()?;
    Some(peer.to_owned())
}
