//! What a proxy does to messages.

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, Header, consts};

/// What becomes of a message.
pub(crate) enum Verdict {
    /// It goes on, as it now is.
    Forward,
    /// The client gets this instead.
    Answer(Message),
    /// Nothing.
    Swallow,
    /// The connection ends.
    Close,
}

/// Which replies a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// When the server has done as it was told.
    Done,
    /// When the server has refused.
    Refused,
}

/// What is done about a message that is not framed, in place of ending the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// It is answered as if it had been carried out.
    Answered,
}

/// On a request: what becomes of it. On a reply: the request, and what becomes of the reply.
type OnRequest = Box<dyn Fn(&mut Message) -> Verdict + Send + Sync>;
type OnReply = Box<dyn Fn(&Message, &mut Message) -> Verdict + Send + Sync>;

/// One thing that is different from the server behind.
pub(crate) enum Rule {
    /// Requests, before the server sees them.
    Request(OnRequest),
    /// Replies of one stage.
    Reply(Stage, OnReply),
    /// So many clients are served and no more.
    Clients(usize),
    /// Messages that are not framed.
    Framing(Framing),
}

/// Which requests a rule is about.
pub(crate) type When = fn(&Message) -> bool;

/// All of them.
pub(crate) fn always(_: &Message) -> bool {
    true
}

impl Rule {
    pub(super) fn request(&self, message: &mut Message) -> Verdict {
        match self {
            Self::Request(rule) => rule(message),
            _ => Verdict::Forward,
        }
    }

    pub(super) fn reply(&self, request: &Message, reply: &mut Message) -> Verdict {
        let stage = if reply.header.is_error() {
            Stage::Refused
        } else {
            Stage::Done
        };
        match self {
            Self::Reply(at, rule) if *at == stage => rule(request, reply),
            _ => Verdict::Forward,
        }
    }

    pub(super) fn clients(&self) -> Option<usize> {
        match self {
            Self::Clients(clients) => Some(*clients),
            _ => None,
        }
    }

    pub(super) fn framing(&self) -> Option<Framing> {
        match self {
            Self::Framing(framing) => Some(*framing),
            _ => None,
        }
    }

    /// Requests of `command` that are so are changed before the server sees them.
    pub(crate) fn changes(
        command: Command,
        when: When,
        change: impl Fn(&mut Message) + Send + Sync + 'static,
    ) -> Self {
        Self::Request(Box::new(move |request| {
            if is(request, command, when) {
                change(request);
                request.header.size = (consts::HEADER_SIZE + request.payload.len()) as u32;
            }
            Verdict::Forward
        }))
    }

    /// Requests of `command` that are so are not carried out, and answered as if they had been.
    pub(crate) fn pretends(
        command: Command,
        when: When,
        payload: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::Request(Box::new(move |request| {
            if is(request, command, when) {
                return Verdict::Answer(done(request, payload(request)));
            }
            Verdict::Forward
        }))
    }

    /// Requests of `command` that are so are refused.
    pub(crate) fn refuses(command: Command, when: When, errno: u32) -> Self {
        Self::Request(Box::new(move |request| {
            if is(request, command, when) {
                return Verdict::Answer(refusal(request, errno));
            }
            Verdict::Forward
        }))
    }

    /// Requests of `command` that are so get no answer.
    pub(crate) fn swallows(command: Command, when: When) -> Self {
        Self::Request(Box::new(move |request| {
            if is(request, command, when) {
                return Verdict::Swallow;
            }
            Verdict::Forward
        }))
    }

    /// Requests of `command` that are so end the connection.
    pub(crate) fn closes(command: Command, when: When) -> Self {
        Self::Request(Box::new(move |request| {
            if is(request, command, when) {
                return Verdict::Close;
            }
            Verdict::Forward
        }))
    }

    /// What the server refuses of `command` is answered as if it had been carried out.
    pub(crate) fn grants(
        command: Command,
        when: When,
        payload: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::Reply(
            Stage::Refused,
            Box::new(move |request, _| {
                if is(request, command, when) {
                    return Verdict::Answer(done(request, payload(request)));
                }
                Verdict::Forward
            }),
        )
    }

    /// The errno of what the server refuses of `command` is another one.
    pub(crate) fn says(command: Command, when: When, errno: u32) -> Self {
        Self::Reply(
            Stage::Refused,
            Box::new(move |request, _| {
                if is(request, command, when) {
                    return Verdict::Answer(refusal(request, errno));
                }
                Verdict::Forward
            }),
        )
    }

    /// Replies to what was carried out of `command` are changed.
    pub(crate) fn edits(
        command: Command,
        when: When,
        edit: impl Fn(&Message, &mut Message) + Send + Sync + 'static,
    ) -> Self {
        Self::edits_at(Stage::Done, command, when, edit)
    }

    /// Replies of a stage to `command` are changed.
    pub(crate) fn edits_at(
        stage: Stage,
        command: Command,
        when: When,
        edit: impl Fn(&Message, &mut Message) + Send + Sync + 'static,
    ) -> Self {
        Self::Reply(
            stage,
            Box::new(move |request, reply| {
                if is(request, command, when) {
                    edit(request, reply);
                    reply.header.size = (consts::HEADER_SIZE + reply.payload.len()) as u32;
                }
                Verdict::Forward
            }),
        )
    }
}

fn is(request: &Message, command: Command, when: When) -> bool {
    request.header.command == command as u16 && when(request)
}

/// The reply to a request that was carried out.
pub(crate) fn done(request: &Message, payload: Vec<u8>) -> Message {
    Message {
        header: Header::reply_to(&request.header, payload.len()),
        payload,
        fds: Vec::new(),
    }
}

/// The reply to a request that was refused.
pub(crate) fn refusal(request: &Message, errno: u32) -> Message {
    Message {
        header: Header::error_to(&request.header, errno),
        payload: Vec::new(),
        fds: Vec::new(),
    }
}
