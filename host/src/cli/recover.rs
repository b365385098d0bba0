//! `host recover`: goes on with one stopped node when the majority of the voters is lost for good, or the cluster that it was
//! joining.

use serde_json::json;
use vnode_cluster::recovery::{Recovered, recover};
use vnode_ring::NodeName;

use super::args::Recover;
use super::output::Session;
use super::report::{Exit, Failure};
use crate::data_dir::DataDir;

/// What is given up.
const WARNING: &str = "\
the node becomes the only voter, with the cluster map as it last knew it. Given up is what the lost voters agreed on and this
node had not received. No lost voter may ever start with its old data directory again: empty it, and let the node join anew";

/// Makes the node of that data directory the only voter.
pub(super) fn run(session: &mut Session<'_>, args: &Recover) -> anyhow::Result<Exit> {
    let path = &args.data;
    let Some(name) = DataDir::name_of(path)? else {
        return Err(
            Failure::new(format!("{} is no data directory of a node", path.display()))
                .next("give the directory that the node runs with, as --data")
                .into(),
        );
    };
    if !args.force {
        return Err(Failure::refused(format!("nothing was changed: {WARNING}"))
            .next("if the majority is lost for good, run it again with --force")
            .into());
    }
    // Nobody may be using it.
    let directory = DataDir::open(path, &name)?;
    let recovered = match recover(&directory.cluster_path(), &NodeName::new(&name)?)? {
        Recovered::Voter(recovered) => recovered,
        Recovered::Alone => return alone(session, &name),
    };
    if session.wants_json() {
        session.print_json(&json!({
            "node": name, "epoch": recovered.epoch, "uncertain": recovered.uncertain,
        }))?;
        return Ok(Exit::Ok);
    }
    session.print(&format!(
        "{name} is the only voter now, with the map of epoch {}\n{WARNING}\n\
         next: start it, then `host cluster force-remove NODE` or `force-replace` for each node that is lost\n",
        recovered.epoch
    ))?;
    Ok(Exit::Ok)
}

/// The node had only asked to join.
fn alone(session: &mut Session<'_>, name: &str) -> anyhow::Result<Exit> {
    if session.wants_json() {
        session.print_json(&json!({ "node": name, "alone": true }))?;
        return Ok(Exit::Ok);
    }
    session.print(&format!(
        "{name} has given up joining: when it starts it is a cluster of its own that holds what it held\n\
         next: if it is listed as joining elsewhere, `host cluster leave {name}` there takes it off\n"
    ))?;
    Ok(Exit::Ok)
}
