#!/usr/bin/env bash
# A SLURM cluster of one node, this machine, for tests.  Needs root, and Debian's slurm-wlm and munge.
# All of it lies below one folder, but for the link /etc/slurm/slurm.conf, which commands inside jobs look for.
#   one_node_slurm.sh start <folder>
#   one_node_slurm.sh stop <folder>
set -euo pipefail
folder=$(realpath -m "$2")
link=/etc/slurm/slurm.conf

stop() {
    for daemon in slurmd slurmctld munged; do
        [ -f "$folder/$daemon.pid" ] && kill "$(cat "$folder/$daemon.pid")" 2>/dev/null && rm -f "$folder/$daemon.pid"
    done
    [ "$(readlink "$link")" = "$folder/slurm.conf" ] && rm -f "$link"
    return 0
}

start() {
    if [ -L "$link" ] && ! kill -0 "$(cat "$(dirname "$(readlink "$link")")/slurmctld.pid" 2>/dev/null)" 2>/dev/null; then
        rm -f "$link"  # left by a cluster that was killed
    fi
    [ ! -e "$link" ] || { echo "$link exists: this machine has a SLURM already" >&2; exit 1; }
    for program in munged slurmctld slurmd sbatch; do
        command -v $program >/dev/null || { echo "$program is missing: apt install slurm-wlm munge" >&2; exit 1; }
    done
    mkdir -p "$folder"/{state,spool,munge}
    chmod 700 "$folder/munge"
    head -c 128 /dev/urandom > "$folder/munge/key"
    chmod 400 "$folder/munge/key"
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    local memory=$(($(grep MemTotal /proc/meminfo | tr -dc 0-9) / 1024 * 9 / 10))
    cat > "$folder/slurm.conf" <<EOF
ClusterName=nearfar
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
MinJobAge=600
NodeName=$(hostname -s) CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
    mkdir -p "$(dirname "$link")"
    ln -sfn "$folder/slurm.conf" "$link"
    slurmctld
    slurmd
    for _ in $(seq 60); do
        sinfo -h -o %t 2>/dev/null | grep -q idle && return 0
        sleep 0.5
    done
    echo "the node did not come up; see $folder/slurmctld.log and $folder/slurmd.log" >&2
    stop
    exit 1
}

"$1"
