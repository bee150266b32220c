//! What an agent that runs in a container can see and do of its host.

/// How the socket of the engine is seen from inside of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Socket {
    /// The engine is not reached through a socket.
    Elsewhere,
    /// Its directory is the host's, so a new socket is seen too.
    #[default]
    InDirectory,
    /// Only the socket itself is mounted. The text is its path.
    Alone(String),
    /// There is no such file. The text is its path.
    Missing(String),
}

/// Where a directory of the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Mounted from the host. Whether it is the right directory of the host is checked only where that can be known.
    #[default]
    Mounted,
    /// In the container itself, and gone with it.
    Inside,
    /// Mounted from another directory than the one in which Docker looks for it. The text says so.
    Wrong(String),
}

/// What the container has of its host. The default is a container that has everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The socket of the engine.
    pub socket: Socket,
    /// The network is not the host's.
    pub has_own_network: bool,
    /// The users are not the host's: root in the container is nobody on the host.
    pub has_own_users: bool,
    /// The host's processes are not visible at `/proc`.
    pub has_own_processes: bool,
    /// The host's processes are visible at `/host/proc`.
    pub has_processes_of_host: bool,
    /// The control group of the container is shown as the root of all groups.
    pub has_own_groups: bool,
    /// Groups of other containers are not visible, or none can be made.
    pub groups: Groups,
    /// The directory of the state, and its path.
    pub data: (Place, String),
    /// The host's directory that belongs there.
    pub data_on_host: String,
    /// Directories of log files that are in the container itself, in the order of their paths.
    pub lost_logs: Vec<String>,
    /// The capabilities for changes of the network that are missing, without `CAP_`.
    pub missing_rights: Vec<&'static str>,
    /// The capabilities for the networks of tasks that are missing, without `CAP_`.
    pub missing_network_rights: Vec<&'static str>,
    /// The programs for changes of the network that are missing, where the host's are not mounted.
    pub missing_programs: Vec<&'static str>,
    /// Settings of the kernel cannot be changed.
    pub has_fixed_settings: bool,
    /// Somebody has set `route_localnet`, which `host-setup` does together with the rules; or the record of `host-setup` is there.
    pub is_host_set_up: bool,
    /// The thread that answers containers may not take precedence over others.
    pub lacks_precedence: bool,
    /// The list of GPUs cannot be seen.
    pub lacks_gpus: bool,
    /// The directory of the credentials fetcher's socket, if it cannot be seen.
    pub lacks_fetcher: Option<String>,
}

/// The control groups of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// The host's groups, and new ones can be made.
    #[default]
    Writable,
    /// The host's groups, read-only.
    ReadOnly,
    /// Only those of the container.
    Own,
}

/// The work for which something of the host is needed, according to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The agent keeps the firewall's rules.
    pub rules: bool,
    /// Tasks have limits of their own.
    pub limits: bool,
    /// Statistics of containers are read.
    pub statistics: bool,
    /// Tasks may start network faults.
    pub faults: bool,
    /// Tasks may use GPUs.
    pub gpus: bool,
    /// Tasks may use Kerberos tickets.
    pub gmsa: bool,
    /// Tasks may have network interfaces of their own.
    pub networks: bool,
}
