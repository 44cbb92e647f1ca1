//! A bounded number of places, granted in turn: [`super::turn`] decides, this waits.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::IntGauge;
use tokio::sync::oneshot;

use super::turn::{Turn, Turns};
use crate::priority::Priority;

/// Places for work. Whoever waits for one gets it in the order of [`Turns`].
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    /// How many wait.
    gauge: OnceLock<IntGauge>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: Turns<oneshot::Sender<Place>>,
    /// What this gate has put into the gauge, which others may share.
    told: i64,
}

/// The right to a place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    gate: Option<Arc<Gate>>,
}

impl Gate {
    /// A gate with this many places.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: places,
                waiting: Turns::default(),
                told: 0,
            }),
            gauge: OnceLock::new(),
        })
    }

    /// From now on the gauge also has how many wait here. The first call decides.
    pub fn report_to(&self, gauge: IntGauge) {
        let _ = self.gauge.set(gauge);
        self.tell(&mut self.lock());
    }

    fn tell(&self, state: &mut State) {
        if let Some(gauge) = self.gauge.get() {
            let waiting = i64::try_from(state.waiting.len()).unwrap_or(i64::MAX);
            gauge.add(waiting - state.told);
            state.told = waiting;
        }
    }

    /// Waits for a place. Who gives up waiting gives up nothing else.
    pub async fn enter(self: &Arc<Self>, turn: &Turn) -> Place {
        loop {
            let granted = {
                let mut state = self.lock();
                if state.free > 0 {
                    state.free -= 1;
                    return Place {
                        gate: Some(Arc::clone(self)),
                    };
                }
                let (grant, granted) = oneshot::channel();
                state.waiting.push(turn, grant);
                self.tell(&mut state);
                granted
            };
            // The sender is only dropped unsent with the gate, which `self` keeps.
            if let Ok(place) = granted.await {
                return place;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let told = self.lock().told;
        if let Some(gauge) = self.gauge.get() {
            gauge.sub(told);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        let mut place = Self {
            gate: Some(Arc::clone(&gate)),
        };
        loop {
            let next = {
                let mut state = gate.lock();
                let next = state.waiting.pop(Priority::Routine);
                gate.tell(&mut state);
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else {
                // Counted as free above.
                place.gate = None;
                return;
            };
            match next.send(place) {
                Ok(()) => return,
                // It has given up waiting.
                Err(unwanted) => place = unwanted,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn turn(priority: Priority, study: u64) -> Turn {
        Turn {
            priority,
            modality: "CT".to_owned(),
            study,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_go_to_the_most_urgent() {
        let gate = Gate::new(1);
        let held = gate.enter(&turn(Priority::Routine, 1)).await;
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        gate.report_to(gauge.clone());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, turn) in [
            ("routine", turn(Priority::Routine, 2)),
            ("stat", turn(Priority::Stat, 3)),
        ] {
            let (waiting, order) = (Arc::clone(&gate), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _place = waiting.enter(&turn).await;
                order.lock().unwrap().push(name);
            }));
            // In this order, whatever the scheduler does.
            while gate.lock().waiting.len() < tasks.len() {
                tokio::task::yield_now().await;
            }
        }
        assert!(order.lock().unwrap().is_empty());
        assert_eq!(gauge.get(), 2);
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["stat", "routine"]);
        assert_eq!((gate.lock().free, gauge.get()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_nobody_waits_for_any_more_is_not_lost() {
        let gate = Gate::new(1);
        let held = gate.enter(&turn(Priority::Routine, 1)).await;
        let late = turn(Priority::Routine, 2);
        let given_up = tokio::time::timeout(Duration::from_millis(1), gate.enter(&late)).await;
        assert!(given_up.is_err());
        drop(held);
        assert_eq!(gate.lock().free, 1);
        drop(gate.enter(&late).await);
        assert_eq!(gate.lock().free, 1);
    }
}
