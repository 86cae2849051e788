//! Pods' interfaces: attached before they carry a packet, enforced, and only then brought up.

use std::{collections::BTreeSet, sync::Arc};

use tracing::{error, info, warn};

use super::{
    accepted::Accepted,
    enforcer::{EnforceError, Enforcer, Mac},
    engine::Engine,
    interfaces::{self, Attachment, Named, Network, Resolution, Snapshot},
};
use crate::{
    cluster::{Cluster, Name},
    protocol::{Attached, Detach, Failure, FailureKind},
};

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// Hangs the programs on every interface that `cluster` has a pod behind, and forgets those that are gone.
    ///
    /// An interface stays attached when its pod goes: it is closed then, and open only to a pod that a manifest
    /// knows. `weir detach` frees it.
    pub(super) fn attach_interfaces(
        &mut self,
        accepted: &mut Accepted,
        cluster: &Cluster,
    ) -> Result<Resolution, Failure> {
        let snapshot = self.snapshot()?;
        let present: BTreeSet<u32> = snapshot.links.values().copied().collect();
        accepted.attachments.retain(|pod, attachment| {
            let stays = present.contains(&attachment.ifindex);
            if !stays {
                info!(%pod, interface = attachment.interface, "the attached interface is gone");
            }
            stays
        });
        accepted.freed.retain(|interface, index| snapshot.links.get(interface) == Some(index));
        // While nothing has come or gone, the rounds are enough.
        let is_new = self.network_seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &snapshot));
        if is_new || !self.damage.is_empty() {
            self.repair(&snapshot);
        }

        let mut resolution = interfaces::resolve(
            cluster,
            &self.settings.node,
            self.settings.uplink.as_deref(),
            Named { attachments: &accepted.attachments, freed: &accepted.freed },
            &snapshot,
            &mut self.network,
        );
        let wanted: BTreeSet<String> = resolution.pods.values().cloned().collect();
        for interface in wanted {
            if let Err(error) = self.attach_once(&interface, &snapshot) {
                warn!(interface, %error, "cannot attach");
                resolution.withdraw(&interface, &format!("interface {interface}: {error}"));
            }
        }
        self.attach_uplink(resolution.uplink.as_deref(), &snapshot)?;
        Ok(resolution)
    }

    fn attach_uplink(&mut self, uplink: Option<&str>, snapshot: &Snapshot) -> Result<(), Failure> {
        let Some(uplink) = uplink else { return Ok(()) };
        let former = self.enforcer.uplink();
        if former.as_ref() == snapshot.links.get(uplink) {
            return Ok(());
        }
        // The node's traffic has moved to another interface; the former one is an ordinary one again.
        let moved = former.map_or(Ok(()), |former| self.enforcer.detach(former));
        moved
            .and_then(|()| self.enforcer.attach_uplink(uplink))
            .map_err(|error| self.unchanged(FailureKind::Kernel, format!("uplink {uplink}: {error}")))?;
        if let Err(error) = self.network.accept_own() {
            warn!(%error, "clients on this node cannot use its own node ports: set net.ipv4.conf.lo.accept_local to 1");
        }
        Ok(())
    }

    /// `weir attach`.
    pub(super) fn attach(
        &mut self,
        pod: &Name,
        interface: &str,
        mac: Option<&str>,
    ) -> Result<Attached, Failure> {
        let mac =
            mac.map(str::parse::<Mac>).transpose().map_err(|why| Failure::new(FailureKind::Usage, why))?;
        let snapshot = self.snapshot()?;
        let Some(&ifindex) = snapshot.links.get(interface) else {
            return Err(Failure::new(FailureKind::NotFound, format!("there is no interface {interface}")));
        };
        let taken =
            self.accepted.attachments.iter().find(|(other, taken)| taken.ifindex == ifindex && *other != pod);
        if let Some((other, _)) = taken {
            let why = format!("interface {interface} is attached for pod {other}; detach it first");
            return Err(Failure::new(FailureKind::Usage, why));
        }
        self.attach_once(interface, &snapshot).map_err(|error| {
            self.unchanged(FailureKind::Kernel, format!("interface {interface}: {error}"))
        })?;

        let mut accepted = self.accepted.clone();
        let attachment = Attachment { interface: interface.to_owned(), ifindex, mac, bring_up: true };
        accepted.attachments.insert(pod.clone(), attachment);
        accepted.freed.remove(interface);
        self.enforce_again(accepted)?;

        let resolution = self.active.as_ref().map(|active| &active.resolution);
        let enforced = resolution.is_some_and(|resolution| resolution.pods.contains_key(pod));
        if let Some(why) = resolution.and_then(|resolution| resolution.waiting.get(pod)) {
            return Err(Failure::new(
                FailureKind::Kernel,
                format!("pod {pod} cannot be enforced: {why}; {interface} is closed"),
            ));
        }
        Ok(Attached {
            pod: pod.clone(),
            interface: interface.to_owned(),
            revision: enforced.then_some(self.accepted.revision),
        })
    }

    /// `weir detach`, but for `--all`.
    pub(super) fn detach(&mut self, what: &Detach) -> Result<Vec<String>, Failure> {
        let interface = match what {
            Detach::All => return self.detach_all(),
            Detach::Interface(interface) => interface.clone(),
            Detach::Pod(pod) => self.interface_of(pod).ok_or_else(|| {
                Failure::new(FailureKind::NotFound, format!("pod {pod} is on no interface of this node"))
            })?,
        };
        let index = self.snapshot()?.links.get(&interface).copied();
        let Some(ifindex) = index.filter(|&index| self.enforcer.is_attached(index)) else {
            return Err(Failure::new(FailureKind::NotFound, format!("weir is not on interface {interface}")));
        };
        let mut accepted = self.accepted.clone();
        accepted.attachments.retain(|_, attachment| attachment.ifindex != ifindex);
        accepted.freed.insert(interface.clone(), ifindex);
        self.enforcer
            .detach(ifindex)
            .map_err(|error| Failure::new(FailureKind::Kernel, format!("interface {interface}: {error}")))?;
        self.enforce_again(accepted)?;
        Ok(vec![interface])
    }

    fn detach_all(&mut self) -> Result<Vec<String>, Failure> {
        let programs = self.enforcer.programs();
        let interfaces: BTreeSet<String> = programs.into_iter().map(|program| program.interface).collect();
        self.enforcer.detach_all().map_err(|error| Failure::new(FailureKind::Kernel, error))?;
        Ok(interfaces.into_iter().collect())
    }

    fn interface_of(&self, pod: &Name) -> Option<String> {
        let attached = self.accepted.attachments.get(pod).map(|attachment| attachment.interface.clone());
        attached.or_else(|| self.active.as_ref()?.resolution.pods.get(pod).cloned())
    }

    /// Brings up the interfaces whose pods are enforced now. One that cannot be brought up is tried again.
    pub(super) fn bring_up_enforced(&mut self) {
        let Some(active) = &self.active else { return };
        for (pod, attachment) in &mut self.accepted.attachments {
            if !attachment.bring_up || !active.resolution.pods.contains_key(pod) {
                continue;
            }
            match self.network.bring_up(attachment.ifindex) {
                Ok(()) => attachment.bring_up = false,
                Err(error) => {
                    warn!(%pod, interface = attachment.interface, %error, "cannot bring the interface up");
                }
            }
        }
    }

    fn snapshot(&mut self) -> Result<Arc<Snapshot>, Failure> {
        self.network
            .snapshot()
            .map_err(|error| self.unchanged(FailureKind::Kernel, format!("cannot list interfaces: {error}")))
    }

    fn attach_once(&mut self, interface: &str, snapshot: &Snapshot) -> Result<(), EnforceError> {
        match snapshot.links.get(interface) {
            Some(index) if self.enforcer.is_attached(*index) => Ok(()),
            _ => self.enforcer.attach_pod(interface),
        }
    }

    /// Puts back what somebody else took off, and tells of what cannot be put back.
    pub(super) fn look_after(&mut self) {
        let damage = self.enforcer.damage();
        if damage == self.damage {
            return;
        }
        for text in damage.iter().filter(|text| !self.damage.contains(text)) {
            error!("{text}");
        }
        match self.snapshot() {
            Ok(snapshot) => self.repair(&snapshot),
            Err(failure) => warn!("cannot look after the attached programs: {failure}"),
        }
        self.damage = self.enforcer.damage();
    }

    fn repair(&mut self, snapshot: &Arc<Snapshot>) {
        match self.enforcer.repair() {
            Ok(repaired) => {
                self.network_seen = Some(Arc::clone(snapshot));
                self.repaired += repaired.len() as u64;
                for (interface, _) in snapshot.links.iter().filter(|(_, index)| repaired.contains(index)) {
                    warn!(interface, "somebody took the programs off; they are attached again");
                }
            }
            Err(error) => warn!(%error, "cannot look after the attached programs"),
        }
    }
}
