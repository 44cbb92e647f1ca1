//! What happens in a round, drawn from its seed: who sends what, and what goes wrong when.

use std::time::Duration;

use super::proxy::{Cut, Direction, Travel};
use crate::support::datasets::EXPLICIT;
use crate::support::{Instance, Study};

/// Numbers from a seed (splitmix64): the same in every version and on every machine.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// A duration in milliseconds, both ends included.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.between(1, of) == 1
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.between(0, of.len() as u64 - 1) as usize].clone()
    }
}

/// A study of the round: what its senders must bring, and what others leave behind.
pub struct StudyPlan {
    /// Study Instance UID.
    pub uid: String,
    /// What is sent until it is acknowledged.
    pub required: Vec<Instance>,
    /// What a sender that gives up begins to send: it ends in the middle of the data set.
    pub half: Option<Instance>,
    /// What a sender that gives up sends whole, without waiting for the response.
    pub silent: Option<Instance>,
    /// The models that apply to it; `_` when none does.
    pub models: &'static [&'static str],
}

/// What a sender is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Our own, which knows each response.
    Raw,
    /// DCMTK's `storescu`.
    Storescu,
    /// DCMTK's `dcmsend`.
    Dcmsend,
}

/// One sender at work.
#[derive(Debug, Clone)]
pub struct SenderPlan {
    /// Calling AE title.
    pub title: &'static str,
    /// What it is.
    pub tool: Tool,
    /// Which study.
    pub study: usize,
    /// Which of the required instances, in this order.
    pub instances: Vec<usize>,
    /// Wait before the first association.
    pub starts_after: Duration,
    /// After how many acknowledgements it takes a break, and for how long: late instances.
    pub break_after: Option<(usize, Duration)>,
    /// Longest wait for a response.
    pub patience: Duration,
    /// After a failure it begins with the first instance again, as many modalities do.
    pub begins_anew: bool,
    /// It sends this many acknowledged instances once more in the end.
    pub repeats: usize,
    /// It tries the study's `half` and `silent` instance on the way.
    pub gives_up: bool,
}

/// When a fault comes.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// So much later than this share (of 1000) of the expected acknowledgements.
    Acknowledged(u64, Duration),
    /// So much later than the senders' end: studies are being worked on and published.
    Sent(Duration),
    /// So much later than so many messages of the round were on their way to the broker.
    Published(usize, Duration),
}

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Between senders and gateway.
    Senders,
    /// Between gateway and broker.
    Broker,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// SIGKILL, and a start after a while.
    Kill(Duration),
    /// SIGTERM, and a start when it has drained.
    Terminate,
    /// SIGTERM, and SIGKILL in the middle of the drain.
    TerminateAndKill(Duration),
    /// SIGSTOP, and SIGCONT after a while.
    Pause(Duration),
    /// SIGKILL for a decoding or inference process.
    KillChild(u64),
    /// The broker is stopped in an orderly way, and started.
    BrokerStop(Duration),
    /// The broker is killed, and started.
    BrokerKill(Duration),
    /// Connections are cut, one or all.
    Cut(Side, Cut, Option<usize>),
    /// Bytes of one direction wait for a while, and then all connections are cut: answers are lost.
    HoldAndCut(Side, Direction, Duration, Cut),
    /// Bytes travel badly for a while.
    Slow(Side, Direction, Travel, Duration),
    /// New connections are refused for a while, the open ones are cut.
    Refuse(Side, Duration),
    /// The disk has only so many bytes left for a while.
    FillDisk(u64, Duration),
}

impl Fault {
    const fn is_at_the_broker(self) -> bool {
        matches!(
            self,
            Self::BrokerStop(_)
                | Self::BrokerKill(_)
                | Self::Cut(Side::Broker, ..)
                | Self::HoldAndCut(Side::Broker, ..)
                | Self::Slow(Side::Broker, ..)
                | Self::Refuse(Side::Broker, _)
        )
    }
}

/// A round.
pub struct Round {
    /// Its studies.
    pub studies: Vec<StudyPlan>,
    /// Who sends them.
    pub senders: Vec<SenderPlan>,
    /// What goes wrong.
    pub faults: Vec<(When, Fault)>,
}

impl Round {
    /// The round of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut round = Self {
            studies: Vec::new(),
            senders: Vec::new(),
            faults: Vec::new(),
        };
        // A CT series and films in every round, and something else besides.
        round.series(&mut dice);
        round.films(&mut dice);
        match dice.between(0, 2) {
            0 => round.series(&mut dice),
            1 => round.reports(&mut dice),
            _ => round.films(&mut dice),
        }
        // A fault may come together with the one before.
        let mut last = None;
        for _ in 0..dice.between(2, 6) {
            let fault = fault(&mut dice);
            // Between gateway and broker there is little to disturb before studies are complete.
            let when = match dice.between(0, 9) {
                0 | 1 if last.is_some() => last.unwrap_or(When::Sent(Duration::ZERO)),
                2 | 3 => When::Published(dice.between(1, 4) as usize, dice.millis(0, 8)),
                4 => When::Sent(dice.millis(0, 700)),
                5 => When::Sent(dice.millis(180, 350)),
                6..=8 if fault.is_at_the_broker() => When::Sent(dice.millis(0, 450)),
                _ => When::Acknowledged(dice.between(0, 950), dice.millis(0, 40)),
            };
            last = Some(when);
            round.faults.push((when, fault));
        }
        // storescu cannot send what is compressed beside what is not.
        for sender in &mut round.senders {
            let required = &round.studies[sender.study].required;
            let compressed = |at: &usize| required[*at].transfer_syntax != EXPLICIT;
            if sender.tool == Tool::Storescu && sender.instances.iter().any(compressed) {
                sender.tool = Tool::Dcmsend;
            }
        }
        round
    }

    /// Every instance once.
    pub fn instances(&self) -> usize {
        self.studies.iter().map(|study| study.required.len()).sum()
    }

    /// Slices of a CT, by one sender or by two that share or double them.
    fn series(&mut self, dice: &mut Dice) {
        let mut study = Study::ct();
        study.side = dice.pick(&[32, 64, 64, 128, 200]);
        let count = dice.between(20, 60) as u16;
        let images = (1..=count).map(|number| study.image(number)).collect();
        let at = self.add(dice, &study, images, &["_"]);
        self.send(dice, at, &["CT1", "CT2"]);
    }

    /// Projection images, some of them compressed.
    fn films(&mut self, dice: &mut Dice) {
        let modality = dice.pick(&["DX", "CR"]);
        let mut study = Study::chest().of_modality(modality);
        study.side = dice.pick(&[64, 128, 256]);
        if dice.once_in(3) {
            study = study.requested("STAT");
        }
        let images = (1..=dice.between(1, 4) as u16)
            .map(|number| match dice.once_in(3) {
                true => study.rle(number),
                false => study.image(number),
            })
            .collect();
        // Which of the two models of the campaign apply.
        let models: &[&str] = match modality {
            "DX" => &["cxr-phantom", "three-folds"],
            _ => &["cxr-phantom"],
        };
        let at = self.add(dice, &study, images, models);
        // A workstation adds reports to some of them.
        if dice.once_in(3) {
            let reports = study.reports();
            let first = self.studies[at].required.len();
            let documents = (1..=dice.between(1, 3) as u16).map(|number| reports.document(number));
            self.studies[at].required.extend(documents);
            let last = self.studies[at].required.len();
            let sender = sender(dice, "WORKSTATION", at, (first..last).collect());
            self.senders.push(sender);
            let sender = sender_of(dice, at, (0..first).collect());
            self.senders.push(sender);
        } else {
            self.send(dice, at, &["DX1", "CR2"]);
        }
    }

    /// Objects that no model applies to.
    fn reports(&mut self, dice: &mut Dice) {
        let study = Study::ct().reports();
        let documents = (1..=dice.between(1, 6) as u16)
            .map(|number| study.document(number))
            .collect();
        let at = self.add(dice, &study, documents, &["_"]);
        self.send(dice, at, &["SR1", "SR2"]);
    }

    fn add(
        &mut self,
        dice: &mut Dice,
        study: &Study,
        required: Vec<Instance>,
        models: &'static [&'static str],
    ) -> usize {
        let gives_up = dice.once_in(3);
        self.studies.push(StudyPlan {
            uid: study.uid.clone(),
            half: gives_up.then(|| study.image(900)),
            silent: (gives_up && dice.once_in(2)).then(|| study.image(901)),
            required,
            models,
        });
        self.studies.len() - 1
    }

    fn send(&mut self, dice: &mut Dice, at: usize, titles: &[&'static str; 2]) {
        let count = self.studies[at].required.len();
        let all: Vec<usize> = (0..count).collect();
        match dice.between(0, 5) {
            // Halves by two senders.
            0 if count > 1 => {
                let (left, right) = all.split_at(count / 2);
                for (title, half) in titles.iter().zip([left, right]) {
                    self.senders.push(sender(dice, title, at, half.to_vec()));
                }
            }
            // Everything by two senders, from both ends.
            1 => {
                self.senders.push(sender(dice, titles[0], at, all.clone()));
                let back = all.into_iter().rev().collect();
                self.senders.push(sender(dice, titles[1], at, back));
            }
            _ => self.senders.push(sender(dice, titles[0], at, all)),
        }
        let first = self.senders.iter_mut().rev().find(|one| one.study == at);
        if let Some(sender) = first.filter(|sender| sender.tool == Tool::Raw) {
            sender.gives_up = true;
        }
    }
}

fn sender_of(dice: &mut Dice, study: usize, instances: Vec<usize>) -> SenderPlan {
    SenderPlan {
        gives_up: true,
        tool: Tool::Raw,
        ..sender(dice, "DX1", study, instances)
    }
}

fn sender(dice: &mut Dice, title: &'static str, study: usize, instances: Vec<usize>) -> SenderPlan {
    let count = instances.len() as u64;
    SenderPlan {
        title,
        tool: dice.pick(&[
            Tool::Raw,
            Tool::Raw,
            Tool::Raw,
            Tool::Storescu,
            Tool::Dcmsend,
        ]),
        study,
        instances,
        starts_after: dice.millis(0, 300),
        break_after: dice.once_in(2).then(|| {
            let after = dice.between(1, count) as usize;
            // Half of them as long as the quiet period of the campaign, which is the hardest time to
            // come back: the study is just being taken up.
            let pause = match dice.once_in(2) {
                true => dice.millis(190, 260),
                false => dice.millis(100, 900),
            };
            (after, pause)
        }),
        patience: dice.millis(400, 4000),
        begins_anew: dice.once_in(2),
        repeats: if dice.once_in(3) { 2 } else { 0 },
        gives_up: false,
    }
}

fn fault(dice: &mut Dice) -> Fault {
    let cut = dice.pick(&[Cut::Reset, Cut::Finish, Cut::FinishForth]);
    let direction = dice.pick(&[Direction::Forth, Direction::Back]);
    match dice.between(0, 99) {
        0..=19 => Fault::Kill(dice.millis(0, 300)),
        20..=27 => Fault::Terminate,
        28..=31 => Fault::TerminateAndKill(dice.millis(0, 400)),
        32..=39 => Fault::Pause(dice.millis(50, 1200)),
        40..=45 => Fault::KillChild(dice.next()),
        46..=46 => Fault::BrokerStop(dice.millis(0, 500)),
        47..=48 => Fault::BrokerKill(dice.millis(0, 500)),
        49..=57 => {
            let which = dice.once_in(2).then(|| dice.between(0, 7) as usize);
            Fault::Cut(Side::Senders, cut, which)
        }
        58..=62 => Fault::Cut(Side::Broker, cut, None),
        63..=68 => Fault::HoldAndCut(Side::Senders, direction, dice.millis(5, 400), cut),
        69..=74 => Fault::HoldAndCut(Side::Broker, direction, dice.millis(50, 1200), cut),
        75..=79 => {
            let travel = dice.pick(&[
                Travel::Frozen,
                Travel::Delayed(Duration::from_millis(40)),
                Travel::Trickling(300),
            ]);
            Fault::Slow(Side::Senders, direction, travel, dice.millis(200, 1200))
        }
        80..=84 => {
            let travel = dice.pick(&[
                Travel::Frozen,
                Travel::Delayed(Duration::from_millis(150)),
                Travel::Trickling(100),
            ]);
            Fault::Slow(Side::Broker, direction, travel, dice.millis(200, 2500))
        }
        85..=86 => Fault::Refuse(Side::Senders, dice.millis(100, 600)),
        87..=88 => Fault::Refuse(Side::Broker, dice.millis(100, 1500)),
        _ => Fault::FillDisk(dice.between(0, 200) * 1024, dice.millis(200, 2000)),
    }
}
