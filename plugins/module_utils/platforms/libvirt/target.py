# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt/KVM as a target: disks as files in a directory of the node, and a machine defined once they are written."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from typing import Any, ClassVar, Dict, List, Optional

from ...datapath import images
from ...errors import InvalidInputError, MachineExistsError, RepositoryFullError, SendenseError, TargetFailedError
from ...model import Disk, Machine, Nic
from .._base import PreparedMachine, Target, TargetDisk, TargetRequest
from . import discovery, firmware
from .client import Client, libvirt, mapped
from .domain_xml import DomainPlan, RestoreMark, build, restore_mark
from .host import HostGuests, map_nic, network_names

_FORMATS = ("qcow2", "raw")
_KEY = re.compile(r"disk[0-9]{1,5}")
_JOB_ID = re.compile(r"[0-9a-f]{32}")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_UUIDS = uuid.UUID("6f0b7a56-5a58-4c4d-9c5e-5b6d1f0a4e21")


class LibvirtTarget(Target):
    """One libvirt host. ``connection`` is described in docs/reference/platforms/libvirt.md."""

    NAME: ClassVar[str] = "libvirt"

    def __init__(self, connection: Dict[str, Any]) -> None:
        self._client = Client(connection)

    def connect(self) -> None:
        self._client.connect()

    def close(self) -> None:
        self._client.close()

    # --- before ----------------------------------------------------------------------------------------------------

    def check(self, request: TargetRequest) -> str:
        self._client.require_local("A restore")
        disks = _wanted_disks(request)
        _check_request(request)
        domain = self._find(request.name)
        if domain is not None:
            return self._recognise(domain, request)
        self._refuse_taken_uuid(request)
        self._nics(request)
        guests = HostGuests.read(self._client.handle)
        guests.domain_type(request.machine.architecture, self._client.options["domain_type"])
        if request.machine.firmware == "uefi":
            self._firmware(request, guests)
        for path in _paths(request, disks):
            if os.path.lexists(path):
                raise MachineExistsError(f"Refused to overwrite {path}. Remove it, or restore under a new job.", details={"path": path})
        _check_space(request, disks)
        return ""

    def planned(self, request: TargetRequest) -> PreparedMachine:
        disks = [TargetDisk(disk.key, disk.id, disk.size_bytes, _disk_path(request, disk)) for disk in _wanted_disks(request)]
        return PreparedMachine(request.name, request.job_id, request.point_id, disks, nvram_path=_nvram_path(request))

    def prepare(self, request: TargetRequest) -> PreparedMachine:
        existing = self.check(request)
        prepared = PreparedMachine(request.name, request.job_id, request.point_id, [], existing_id=existing)
        if existing:
            return prepared
        try:
            for disk in _wanted_disks(request):
                prepared.disks.append(_create_disk(request, disk))
            if request.machine.firmware == "uefi":
                self._create_nvram(request, prepared)
        except (SendenseError, OSError) as exc:
            _remove_files(prepared)
            if isinstance(exc, SendenseError):
                raise
            raise TargetFailedError(
                f"Cannot create the disks of {request.name!r} in {request.storage}: {exc.strerror or exc}.",
                details={"storage": request.storage},
            ) from exc
        return prepared

    # --- after -----------------------------------------------------------------------------------------------------

    def finish(self, request: TargetRequest, prepared: PreparedMachine) -> Machine:
        if prepared.existing_id:
            return discovery.describe(self._client, self._client.domain(prepared.existing_id))
        domain = self._find(request.name)
        if domain is not None:
            mark = self._mark(domain)
            if mark is None or mark.job_id != prepared.job_id:
                raise _exists(request.name)
        else:
            domain = self._define(request, prepared)
        return discovery.describe(self._client, domain)

    def power_on(self, machine_id: str) -> bool:
        domain = self._client.domain(machine_id)
        with mapped(f"Cannot start machine {domain.name()}", TargetFailedError):
            if domain.isActive():
                return False
            domain.create()
        return True

    def power_off(self, machine_id: str) -> bool:
        domain = self._client.domain(machine_id)
        with mapped(f"Cannot stop machine {domain.name()}", TargetFailedError):
            if not domain.isActive():
                return False
            domain.destroy()
        return True

    def destroy(self, prepared: PreparedMachine) -> List[str]:
        if prepared.existing_id:
            return []
        removed = []
        domain = self._find(prepared.name)
        mark = None if domain is None else self._mark(domain)
        if domain is not None and mark is not None and mark.job_id == prepared.job_id:
            flags = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            with mapped(f"Cannot remove machine {prepared.name!r}", TargetFailedError):
                if domain.isActive():
                    domain.destroy()
                domain.undefineFlags(flags)
            removed.append(f"machine {prepared.name}")
        return removed + _remove_files(prepared)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> Any:
        try:
            return self._client.handle.lookupByName(name)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            with mapped(f"Cannot look up machine {name!r}", TargetFailedError):
                raise

    def _mark(self, domain: Any) -> Optional[RestoreMark]:
        with mapped("Cannot read the machine", TargetFailedError):
            return restore_mark(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def _recognise(self, domain: Any, request: TargetRequest) -> str:
        """The id of a machine that this very restore has made: machines are defined only when all data is stored."""
        mark = self._mark(domain)
        keys = " ".join(sorted(disk.key for disk in _wanted_disks(request)))
        if mark is None or mark.point_id != request.point_id or mark.disks != keys:
            raise _exists(request.name)
        return str(domain.UUIDString())

    def _refuse_taken_uuid(self, request: TargetRequest) -> None:
        try:
            self._client.handle.lookupByUUIDString(_uuid(request.job_id))
        except libvirt.libvirtError:
            return
        raise MachineExistsError(f"Job {request.job_id} has already restored a machine under another name. Restore under a new job.")

    def _nics(self, request: TargetRequest) -> List[Nic]:
        known = network_names(self._client.handle)
        mapped_nics = [map_nic(nic, request.networks, known) for nic in request.machine.nics]
        return [nic for nic in mapped_nics if nic.network_type]

    def _machine_type(self, request: TargetRequest, guests: HostGuests) -> str:
        return guests.machine_type(request.machine.architecture, request.machine.machine_type)

    def _firmware(self, request: TargetRequest, guests: HostGuests) -> firmware.Firmware:
        size = os.path.getsize(request.nvram_path) if request.nvram_path else None
        machine = request.machine
        return firmware.choose(machine.architecture, self._machine_type(request, guests), machine.secure_boot, size)

    def _create_nvram(self, request: TargetRequest, prepared: PreparedMachine) -> None:
        source = request.nvram_path or self._firmware(request, HostGuests.read(self._client.handle)).template
        path = _nvram_path(request)
        with open(source, "rb") as variables, open(path, "xb") as copy:
            prepared.nvram_path = path
            shutil.copyfileobj(variables, copy)
            copy.flush()
            os.fsync(copy.fileno())

    def _define(self, request: TargetRequest, prepared: PreparedMachine) -> Any:
        for disk in prepared.disks:
            if not os.path.isfile(disk.path):
                raise TargetFailedError(f"Cannot define machine {request.name!r}: its disk {disk.path} is gone. Restore again.")
        guests = HostGuests.read(self._client.handle)
        plan = DomainPlan(
            machine=request.machine,
            name=request.name,
            uuid=_uuid(request.job_id),
            job_id=prepared.job_id,
            point_id=prepared.point_id,
            format=request.format,
            domain_type=guests.domain_type(request.machine.architecture, self._client.options["domain_type"]),
            machine_type=self._machine_type(request, guests),
            disks=prepared.disks,
            nics=self._nics(request),
            keep_mac=request.keep_mac,
            firmware=self._firmware(request, guests) if request.machine.firmware == "uefi" else None,
            nvram_path=prepared.nvram_path,
            console_log=self._client.options["console_log"],
        )
        with mapped(f"Cannot define machine {request.name!r}", TargetFailedError):
            return self._client.handle.defineXML(build(plan))


def _uuid(job_id: str) -> str:
    """The machine's uuid follows from the job, so that a repeated definition is the same machine."""
    return str(uuid.uuid5(_UUIDS, job_id))


def _exists(name: str) -> MachineExistsError:
    return MachineExistsError(
        f"There is already a machine named {name!r}, and it is not the result of this restore. Restore under another name.",
        details={"name": name},
    )


def _wanted_disks(request: TargetRequest) -> List[Disk]:
    disks = [disk for disk in request.machine.disks if not request.disks or disk.key in request.disks]
    unknown = sorted(set(request.disks) - {disk.key for disk in request.machine.disks})
    if unknown or not disks:
        known = [disk.key for disk in request.machine.disks]
        raise InvalidInputError(f"The backup has no disk {', '.join(unknown) or 'at all'}; it has: {', '.join(known) or 'none'}.")
    return disks


def _check_request(request: TargetRequest) -> None:
    name = request.name
    if not name or "/" in name or name in (".", "..") or _CONTROL.search(name) or name != name.strip():
        raise InvalidInputError(
            f"libvirt does not take the machine name {name!r}: no '/', no control characters, no space at its ends. Choose another.",
            details={"name": name},
        )
    if not _JOB_ID.fullmatch(request.job_id):
        raise InvalidInputError(f"The job id {request.job_id!r} is not 32 lower-case hex digits.")
    if request.format not in _FORMATS:
        raise InvalidInputError(f"Unknown disk format {request.format!r}; known are: {', '.join(_FORMATS)}.")
    for disk in request.machine.disks:
        if not _KEY.fullmatch(disk.key):
            raise InvalidInputError(f"The disk key {disk.key!r} is not of the form disk<N>.")
    if not os.path.isabs(request.storage) or not os.path.isdir(request.storage):
        raise InvalidInputError(
            f"Cannot create disks in storage {request.storage!r}: it is not the absolute path of a directory that exists at this node. "
            "Make it there, or name another one.",
            details={"storage": request.storage},
        )
    if request.nvram_path and not os.path.isfile(request.nvram_path):
        raise InvalidInputError(f"The firmware variables {request.nvram_path!r} are not at this place.")


def _check_space(request: TargetRequest, disks: List[Disk]) -> None:
    known = [disk.size_bytes if disk.allocated_bytes is None else disk.allocated_bytes for disk in disks]
    needed = sum(min(known_bytes, disk.size_bytes) for known_bytes, disk in zip(known, disks))
    state = os.statvfs(request.storage)
    free = state.f_bavail * state.f_frsize
    if needed > free:
        raise RepositoryFullError(
            f"The storage {request.storage} has {free} bytes free, and the restore may need {needed}. Free space or choose another.",
            details={"storage": request.storage, "free_bytes": free, "needed_bytes": needed},
        )


def _file_prefix(job_id: str) -> str:
    return f"sendense-{job_id}-"


def _disk_path(request: TargetRequest, disk: Disk) -> str:
    return os.path.join(request.storage, f"{_file_prefix(request.job_id)}{disk.key}.{request.format}")


def _nvram_path(request: TargetRequest) -> str:
    return os.path.join(request.storage, f"{_file_prefix(request.job_id)}nvram.fd")


def _paths(request: TargetRequest, disks: List[Disk]) -> List[str]:
    return [_disk_path(request, disk) for disk in disks] + [_nvram_path(request)]


def _create_disk(request: TargetRequest, disk: Disk) -> TargetDisk:
    path = _disk_path(request, disk)
    if os.path.lexists(path):
        raise MachineExistsError(f"Refused to overwrite {path}.", details={"path": path})
    if request.format == "qcow2":
        images.create_qcow2(path, disk.size_bytes)
        node = images.qcow2_node(path)
    else:
        images.create_raw(path, disk.size_bytes)
        node = images.raw_node(path)
    return TargetDisk(disk.key, disk.id, disk.size_bytes, path, node)


def _remove_files(prepared: PreparedMachine) -> List[str]:
    """Remove the files of this job, recognised by their names, whatever ``prepared`` says."""
    removed = []
    for path in [disk.path for disk in prepared.disks] + [prepared.nvram_path]:
        if not path or not os.path.basename(path).startswith(_file_prefix(prepared.job_id)):
            continue
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        removed.append(f"file {path}")
    return removed
