//! MSI and MSI-X vectors: edges, each with an eventfd.

use super::eventfd::Eventfd;

/// The vectors of an enabled index.
#[derive(Debug)]
pub(super) struct Messages {
    vectors: Vec<Vector>,
    /// How many vectors the driver has, as far as the client has said.
    enabled: usize,
}

#[derive(Debug, Default)]
struct Vector {
    trigger: Option<Eventfd>,
    gate: Gate,
}

/// Whether the client is told of an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Gate {
    /// It is.
    #[default]
    Open,
    /// It will be after unmasking.
    Masked,
    /// There was an edge since the client masked the vector.
    Withheld,
}

impl Messages {
    /// MSI: at most `count` vectors. Those up to the highest one connected are enabled, for the driver chose their number.
    pub(super) fn msi(count: u32) -> Self {
        Self {
            vectors: vectors(count),
            enabled: 0,
        }
    }

    /// MSI-X: `count` vectors, all enabled. One without an eventfd is one that the driver has not unmasked yet.
    pub(super) fn msix(count: u32) -> Self {
        Self {
            vectors: vectors(count),
            enabled: count as usize,
        }
    }

    /// Sets the eventfds of the vectors from `start`, or takes them away. A vector that gets its first one is told of
    /// its causes: nobody was when they were raised.
    pub(super) fn connect(&mut self, start: usize, triggers: Vec<Option<Eventfd>>, pending: u64) {
        let end = start + triggers.len();
        self.enabled = self.enabled.max(end);
        let mut fresh = Vec::new();
        for (number, trigger) in (start..end).zip(triggers) {
            let vector = &mut self.vectors[number];
            if vector.trigger.is_none() && trigger.is_some() {
                fresh.push(number);
            }
            vector.trigger = trigger;
        }
        for number in fresh {
            self.resignal_vector(number, pending);
        }
    }

    /// Cause `cause` has become pending.
    pub(super) fn raise(&mut self, cause: u32) {
        let number = self.vector_of(cause);
        if let Some(vector) = self.vectors.get_mut(number) {
            vector.edge();
        }
    }

    /// Tells the client of every pending cause once more.
    pub(super) fn resignal(&mut self, pending: u64) {
        for number in 0..self.vectors.len() {
            self.resignal_vector(number, pending);
        }
    }

    /// Withholds the edges of a vector.
    pub(super) fn mask(&mut self, number: usize) {
        let vector = &mut self.vectors[number];
        if vector.gate == Gate::Open {
            vector.gate = Gate::Masked;
        }
    }

    /// Lets edges through again, first the one withheld if its cause is still there.
    pub(super) fn unmask(&mut self, number: usize, pending: u64) {
        let gate = std::mem::take(&mut self.vectors[number].gate);
        if gate == Gate::Withheld {
            self.resignal_vector(number, pending);
        }
    }

    /// Signals a vector, masked or not, for a client that tests its eventfd.
    pub(super) fn loop_back(&self, number: usize) {
        if let Some(trigger) = &self.vectors[number].trigger {
            trigger.signal();
        }
    }

    fn resignal_vector(&mut self, number: usize, pending: u64) {
        let mut causes = (0..u64::BITS).filter(|cause| pending & (1 << cause) != 0);
        if causes.any(|cause| self.vector_of(cause) == number) {
            self.vectors[number].edge();
        }
    }

    /// The vector that `cause` signals: its own, or 0 when the driver has enabled fewer.
    fn vector_of(&self, cause: u32) -> usize {
        let own = cause as usize;
        if own < self.enabled { own } else { 0 }
    }
}

fn vectors(count: u32) -> Vec<Vector> {
    (0..count).map(|_| Vector::default()).collect()
}

impl Vector {
    fn edge(&mut self) {
        if self.gate != Gate::Open {
            self.gate = Gate::Withheld;
            return;
        }
        if let Some(trigger) = &self.trigger {
            trigger.signal();
        }
    }
}
