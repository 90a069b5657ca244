//! Training one trial with several processes, its *ranks*. [`Rendezvous`] brings them together and
//! watches them as long as they live; [`Group`] is what they compute together; [`share`] says which
//! examples of a batch are whose.
//!
//! Two ways lead from rank to rank. Sums go through the process group. Beside it every rank keeps a
//! plain connection to rank 0 on a thread of its own: through it a dead rank is known within
//! milliseconds and a cut line within seconds, whatever the training threads wait for.

mod check;
mod gpu;
mod group;
mod identity;
mod ledger;
mod message;
mod rendezvous;
mod share;
mod watch;

pub use check::check;
pub use group::{Group, PendingMax};
pub use identity::Identity;
pub use ledger::Ledger;
pub use message::RankFailure;
pub(crate) use rendezvous::ADDRESS_VARIABLE;
pub use rendezvous::{Membership, Rendezvous, RendezvousError};
pub use share::share;
