//! GET and SET of kv in Rust: the same requests, rows, transaction and replies as through the guest, without the guest.

use std::collections::VecDeque;
use std::sync::Arc;

use vnode_host::resp::write;
use vnode_host::vnode::request::{Replies, Request};
use vnode_host::vnode::service::{CommandStats, Ended, Service};
use vnode_host::vnode::{Call, Ran, Vnode};
use vnode_host::wasm::{Scope, VnodeState};

use crate::rig::{BUDGET, Runner};

/// The vnode as an executor runs it.
pub(crate) struct Guested {
    pub(crate) vnode: Vnode,
    pub(crate) call: Call,
}

impl Runner for Guested {
    fn run(
        &mut self,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
    ) {
        while !mailbox.is_empty() {
            assert!(matches!(
                self.vnode
                    .run(&mut self.call, mailbox, replies, stats, BUDGET),
                Ran::All
            ));
        }
    }
}

/// A vnode without a guest.
pub(crate) struct Native {
    service: Arc<Service>,
    state: VnodeState,
    value: Vec<u8>,
    written: Vec<Request>,
}

impl Native {
    pub(crate) fn new(service: Arc<Service>, state: VnodeState) -> Native {
        Native {
            service,
            state,
            value: Vec::new(),
            written: Vec::new(),
        }
    }
}

impl Runner for Native {
    /// One commit for all, as the guest's vnode has it; that is right only while no key comes twice.
    fn run(
        &mut self,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
    ) {
        let count = |request: &Request| {
            stats[usize::from(request.command)].count(Ended::Ok, request.arrived.elapsed());
        };
        for request in mailbox.drain(..) {
            let spec = self.service.first().command(request.command).unwrap();
            let scope = Scope {
                range: request.range,
                writes: spec.writes(),
                now_ms: request.now_ms,
                seed: request.id,
            };
            self.state.set_scope(scope);
            let key = request.words.get(1);
            if spec.writes() {
                let value = Some(request.words.get(2));
                let hash = request.hash;
                self.state.check_write(hash, key, value).unwrap();
                self.state.stage(hash, key, value).unwrap();
                self.written.push(request);
                continue;
            }
            self.value.clear();
            let found = self
                .state
                .read_committed(request.hash, key, &mut self.value)
                .unwrap();
            assert!(found);
            count(&request);
            replies.push(request.reply_to, None, |out| write::bulk(out, &self.value));
        }
        if self.written.is_empty() {
            return;
        }
        let commit = self.state.commit().unwrap();
        for request in self.written.drain(..) {
            count(&request);
            replies.push(request.reply_to, commit, |out| write::simple(out, "OK"));
        }
    }
}
