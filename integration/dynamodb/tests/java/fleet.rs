//! A fleet of both kinds of worker, of which members are lost and replaced.

use crate::member::{Java, Ours};
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Java,
}

enum Member {
    Ours(Ours),
    Java(Java),
}

impl Member {
    const fn kind(&self) -> Kind {
        match self {
            Self::Ours(_) => Kind::Ours,
            Self::Java(_) => Kind::Java,
        }
    }

    async fn stop(self) {
        match self {
            Self::Ours(worker) => worker.stop().await,
            Self::Java(worker) => worker.stop().await,
        }
    }

    async fn kill(self) {
        match self {
            Self::Ours(worker) => worker.kill().await,
            Self::Java(worker) => worker.kill().await,
        }
    }
}

#[derive(Default)]
pub(crate) struct Fleet {
    members: Vec<(String, Member)>,
    joined: usize,
}

impl Fleet {
    pub(crate) fn join(&mut self, world: &World, kind: Kind) {
        self.joined += 1;
        let (id, member) = match kind {
            Kind::Ours => {
                let id = format!("ours-{}", self.joined);
                (id.clone(), Member::Ours(world.ours(&id)))
            }
            Kind::Java => {
                let id = format!("java-{}", self.joined);
                (id.clone(), Member::Java(world.java(&id)))
            }
        };
        self.members.push((id, member));
    }

    /// The kind of which there are fewer, so that there are always both.
    pub(crate) fn rarer(&self, random: &mut fastrand::Rng) -> Kind {
        let count = |kind| self.members.iter().filter(|(_, member)| member.kind() == kind).count();
        match count(Kind::Ours).cmp(&count(Kind::Java)) {
            std::cmp::Ordering::Less => Kind::Ours,
            std::cmp::Ordering::Greater => Kind::Java,
            std::cmp::Ordering::Equal if random.bool() => Kind::Ours,
            std::cmp::Ordering::Equal => Kind::Java,
        }
    }

    /// Kills or stops a member; the leader in every other round.
    pub(crate) async fn lose_one(&mut self, world: &World, random: &mut fastrand::Rng, round: usize) {
        let leader = world.leader().await;
        let leading = self.members.iter().position(|(id, _)| Some(id) == leader.as_ref());
        let victim = leading.filter(|_| round % 2 == 0).unwrap_or_else(|| random.usize(0..self.members.len()));
        let (id, member) = self.members.swap_remove(victim);
        let (is_leader, is_killed) = (leader.as_ref() == Some(&id), random.u8(0..4) > 0);
        let (leads, ends) =
            (if is_leader { ", which leads," } else { "" }, if is_killed { "killed" } else { "stopped" });
        world.say(&format!("{id}{leads} is {ends}"));
        if is_killed { member.kill().await } else { member.stop().await }
    }

    /// Waits until every member has a lease or more, and nobody else has any.
    pub(crate) async fn until_all_have_leases(&self, world: &World) {
        let shares: Vec<(&str, usize)> = self.members.iter().map(|(id, _)| (id.as_str(), 1)).collect();
        world.until_shared(&shares).await;
    }

    pub(crate) async fn stop(self, world: &World) {
        for (id, member) in self.members {
            world.say(&format!("{id} is stopped"));
            member.stop().await;
        }
    }
}
