//! Both backends against a `BTreeMap`.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(u64, u8, Option<Vec<u8>>)>),
    Get(u64, u8),
    Scan {
        from: (u64, u8),
        exclusive: bool,
        to_hash: u64,
        max_rows: usize,
        max_bytes: usize,
    },
    Reopen,
    Crash,
    Drop,
}

fn hash() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..6, Just(u64::MAX), Just(u64::MAX - 1)]
}

fn step() -> impl Strategy<Value = Step> {
    let object = prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..600));
    prop_oneof![
        12 => prop::collection::vec((hash(), 0_u8..20, object), 1..12).prop_map(Step::Apply),
        6 => (hash(), 0_u8..20).prop_map(|(hash, key)| Step::Get(hash, key)),
        4 => ((hash(), 0_u8..20), any::<bool>(), hash(), 0_usize..40, 0_usize..4000).prop_map(
            |(from, exclusive, to_hash, max_rows, max_bytes)| Step::Scan { from, exclusive, to_hash, max_rows, max_bytes }
        ),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::Drop),
    ]
}

/// An engine and its store; `None` while a test reopens them.
struct Subject {
    directory: Option<tempfile::TempDir>,
    engine: Option<Engine>,
    store: Option<Box<dyn Store>>,
}

impl Subject {
    fn memory() -> Self {
        let engine = Engine::memory();
        let store = engine.open("kv", 1).unwrap();
        Self {
            directory: None,
            engine: Some(engine),
            store: Some(store),
        }
    }

    fn disk() -> Self {
        let mut subject = Self {
            directory: Some(tempfile::tempdir().unwrap()),
            engine: None,
            store: None,
        };
        subject.start();
        subject
    }

    fn start(&mut self) {
        let path = self.directory.as_ref().unwrap().path();
        let engine =
            Engine::disk(path, tiny(Durability::Interval(Duration::from_millis(1)))).unwrap();
        let mut stores = engine
            .open_all(&[("ping", 7), ("kv", 1), ("kv", 2)])
            .unwrap();
        // Neighbours that must never be seen.
        put(&mut *stores[0], u64::MAX, b"z", b"other");
        put(&mut *stores[2], 0, b"", b"other");
        self.store = Some(stores.swap_remove(1));
        self.engine = Some(engine);
    }

    /// Closes in order, or just lets go once everything is durable; memory starts empty.
    fn reopen(&mut self, model: &mut Model, close: bool) {
        if self.directory.is_none() {
            *self = Self::memory();
            model.clear();
            return;
        }
        if close {
            self.engine.as_ref().unwrap().close().unwrap();
        }
        self.store = None;
        self.engine = None;
        self.start();
    }
}

fn run(mut subject: Subject, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    let mut dots = Vec::new();
    for step in steps {
        match step {
            Step::Reopen => subject.reopen(&mut model, true),
            Step::Crash => subject.reopen(&mut model, false),
            _ => {}
        }
        let store = subject.store.as_mut().unwrap();
        match step {
            Step::Reopen | Step::Crash => {}
            Step::Apply(changes) => apply(&mut **store, &mut model, changes),
            Step::Get(hash, name) => {
                let want = model.get(&(hash, vec![name])).map(Vec::as_slice);
                prop_assert_eq!(store.get(key(hash, &[name])).unwrap(), want);
            }
            Step::Scan {
                from,
                exclusive,
                to_hash,
                max_rows,
                max_bytes,
            } => {
                let bound = if exclusive {
                    Bound::Excluded
                } else {
                    Bound::Included
                };
                check_scan(
                    &mut **store,
                    &model,
                    bound,
                    from,
                    to_hash,
                    max_rows,
                    max_bytes,
                )?;
            }
            Step::Drop => {
                while store.drop_rows(7).unwrap() == Page::More {}
                model.clear();
            }
        }
        prop_assert_eq!(store.stats().live, model.len() as u64);
        dots.push(store.next_dot().unwrap());
    }
    prop_assert_eq!(
        &read_all(&mut **subject.store.as_mut().unwrap(), 13).unwrap(),
        &model
    );
    let count = dots.len();
    dots.sort();
    dots.dedup();
    prop_assert_eq!(dots.len(), count, "a dot came twice");
    Ok(())
}

fn apply(store: &mut dyn Store, model: &mut Model, changes: Vec<(u64, u8, Option<Vec<u8>>)>) {
    let mut batch = Batch::new();
    for (hash, name, object) in changes {
        let id = (hash, vec![name]);
        let before = model.contains_key(&id);
        match object {
            Some(object) => {
                let live = Liveness {
                    before,
                    after: true,
                };
                batch.put(key(hash, &[name]), &object, live).unwrap();
                model.insert(id, object);
            }
            None => {
                batch.remove(key(hash, &[name]), before).unwrap();
                model.remove(&id);
            }
        }
    }
    store.apply(&batch).unwrap();
}

fn check_scan<'a>(
    store: &mut dyn Store,
    model: &Model,
    bound: fn(RowKey<'a>) -> Bound<RowKey<'a>>,
    (hash, name): (u64, u8),
    to_hash: u64,
    max_rows: usize,
    max_bytes: usize,
) -> Result<(), TestCaseError> {
    let name: &'static [u8] = Box::leak(Box::new([name]));
    let from = bound(key(hash, name));
    let mut seen = Vec::new();
    let scan = Scan {
        from,
        to_hash,
        max_rows,
        max_bytes,
    };
    let page = store
        .scan(&scan, &mut |row, object| {
            seen.push(((row.hash, row.key.to_vec()), object.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    let start = (hash, name.to_vec());
    let in_range: Vec<_> = model
        .iter()
        .filter(|(id, _)| {
            if matches!(from, Bound::Excluded(_)) {
                **id > start
            } else {
                **id >= start
            }
        })
        .filter(|(id, _)| id.0 <= to_hash)
        .map(|(id, object)| (id.clone(), object.clone()))
        .collect();
    let mut bytes = 0;
    let fit = in_range
        .iter()
        .enumerate()
        .take_while(|(index, (id, object))| {
            bytes += id.1.len() + object.len();
            *index < max_rows && (bytes <= max_bytes || *index == 0)
        })
        .count();
    prop_assert_eq!(&seen[..], &in_range[..fit]);
    prop_assert_eq!(
        page,
        if fit < in_range.len() {
            Page::More
        } else {
            Page::Last
        }
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn memory_behaves_as_a_map(steps in prop::collection::vec(step(), 1..120)) {
        run(Subject::memory(), steps)?;
    }

}

proptest! {
    // Opening again and again is slow, so these are fewer.
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn disk_behaves_as_a_map(steps in prop::collection::vec(step(), 1..120)) {
        run(Subject::disk(), steps)?;
    }
}
