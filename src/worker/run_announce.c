/*-------------------------------------------------------------------------
 *
 * run_announce.c
 *		What others have to know of a run if its worker should not come back.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "worker/worker.h"

/*
 * Tell others of a run, in the worker's slot and in the file that outlives the
 * server.  blameless is whether the process leaves for a reason that the run is not
 * to blame for, as far as anybody knows.
 */
void
run_announce(const Run *run, bool blameless)
{
	Suspect		suspect;

	memset(&suspect, 0, sizeof(suspect));	/* its checksum includes the
											 * padding */
	suspect.id = run->id;
	suspect.revision = run->start.revision;
	suspect.scheduled_at = run->start.scheduled_at;
	suspect.started_at = run->start.started_at;
	suspect.database = MyDatabaseId;
	suspect.owner = run->start.owner;
	suspect.attempt = run->start.attempt;
	suspect.worker_pid = MyProcPid;
	suspect.blameless = blameless;

	SpinLockAcquire(&ts_my_worker->mutex);
	if (blameless)
		ts_my_worker->bystander = true;
	ts_my_worker->running_since = run->start.started_at;
	ts_my_worker->running_revision = run->start.revision;
	ts_my_worker->running_scheduled_at = run->start.scheduled_at;
	ts_my_worker->running_attempt = run->start.attempt;
	SpinLockRelease(&ts_my_worker->mutex);
	crash_record_note(&suspect);
}
