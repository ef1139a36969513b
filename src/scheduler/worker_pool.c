/*-------------------------------------------------------------------------
 *
 * worker_pool.c
 *		The scheduler's workers, as last seen in their slots.
 *
 * In each round the scheduler looks which of its workers have come and gone,
 * what they have reported, and how far they are.  How many of them there are to
 * be, and for which roles, worker_limits.c decides; which task goes to which,
 * dispatch.c.
 *
 * A worker that is sent away finishes its run first, and what it has not begun is
 * taken back.  A run that has lost its worker is for lost_runs.c.
 *
 * A role whose worker fails to start is left alone for a while, longer each time
 * unless there is not enough of something, which may be over any moment.  Other
 * roles are not affected.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

WorkerPool *ts_pool = NULL;

/* Begin, once a scheduler. */
void
worker_pool_start(void)
{
	ts_pool = MemoryContextAllocZero(TopMemoryContext, offsetof(WorkerPool, workers) +
									 ts_shared->nslots * sizeof(PoolWorker));
}

/* Take note that a worker of ours has gone, or has never come. */
static void
worker_pool_lose(int slot, int64 running_id, const LostRun *lost)
{
	PoolWorker *mine = &ts_pool->workers[slot];
	Role	   *role = mine->role;

	/* (one that was sent away on its way has not failed) */
	if (mine->state != TS_WORKER_READY && !mine->retire)
	{
		int64		backoff = process_backoff(0);

		if (mine->shortage)
			role->failed_starts = Max(role->failed_starts, 1);
		else
			backoff = process_backoff(role->failed_starts++);
		ts_debug(DEBUG1, "worker of role %u did not start: the next not before %d s",
				 role->oid, (int) (backoff / USECS_PER_SEC));
		role->start_after = GetCurrentTimestamp() + backoff;
		role->checked = false;
	}
	else
		ts_debug(DEBUG1, "worker %d has gone", mine->pid);
	if (lookahead_lost_worker(slot, lost->revision != 0 ? running_id : 0))
		lost_runs_add(running_id, lost);
	mine->known = false;
}

/* Take over a worker that an earlier scheduler of this database has left. */
static void
worker_pool_adopt(int slot, TsWorker *worker)
{
	TsMember	members[TS_MAX_TASKS_PER_COMMIT];
	int			nmembers;
	int64		running_id;
	Oid			role_oid;

	/* what it has not started will be read from the table */
	SpinLockAcquire(&worker->mutex);
	worker->handed_head = worker->handed_tail;
	running_id = worker->running_id;
	nmembers = worker->nmembers;
	memcpy(members, worker->members, nmembers * sizeof(TsMember));
	role_oid = worker->role;
	SpinLockRelease(&worker->mutex);

	if (running_id != 0)
		lookahead_adopt(running_id, role_oid, slot);
	for (int i = 0; i < nmembers; i++)
		lookahead_adopt(members[i].id, role_oid, slot);
}

/*
 * Return whether there is a worker of this database in a slot.  Take note if the
 * one that was there is not there any more.
 */
static bool
worker_pool_is_ours(int slot, Oid database)
{
	PoolWorker *mine = &ts_pool->workers[slot];
	TsWorker   *worker = &ts_shared->workers[slot];
	bool		ours;
	bool		gone;
	int64		running_id;

	SpinLockAcquire(&worker->mutex);
	ours = (worker->state != TS_WORKER_FREE && worker->database == database);
	gone = (!ours && worker->database == database && worker->unseen);
	if (gone)
		worker->unseen = false;
	running_id = worker->running_id;
	if (mine->known ? (!ours || worker->generation != mine->generation) :
		(gone && running_id != 0 && worker->running_revision != 0))
	{
		bool		same = (worker->generation == mine->generation);
		LostRun		lost = {
			.revision = worker->running_revision,
			.scheduled_at = worker->running_scheduled_at,
			.started_at = worker->running_since,
			.attempt = worker->running_attempt,
			.worker_pid = mine->pid,
			.slot = slot,
			.owner = worker->role,
			.timed_out = worker->timed_out,
			.bystander = worker->bystander
		};

		if (same)
			mine->retire = worker->retire;
		mine->shortage = same && worker->shortage;
		SpinLockRelease(&worker->mutex);
		if (mine->known)
			worker_pool_lose(slot, same ? running_id : 0, &lost);
		else					/* together with an earlier scheduler */
			lost_runs_add(running_id, &lost);
		SpinLockAcquire(&worker->mutex);
		ours = (worker->state != TS_WORKER_FREE && worker->database == database);
	}
	SpinLockRelease(&worker->mutex);
	return ours;
}

/* Look what a worker of ours has reported, and how far it is. */
static void
worker_pool_look(int slot)
{
	PoolWorker *mine = &ts_pool->workers[slot];
	TsWorker   *worker = &ts_shared->workers[slot];
	TsReport	reports[TS_REPORTS];
	int			nreports = 0;
	int			outstanding;
	bool		adopt = !mine->known;
	Oid			role_oid;
	TsWorkerState state;

	if (adopt)
		worker_pool_adopt(slot, worker);

	/* take what there is in the slot */
	SpinLockAcquire(&worker->mutex);
	while (worker->reports_head != worker->reports_tail)
		reports[nreports++] = worker->reports[worker->reports_head++ % TS_REPORTS];
	state = worker->state;
	role_oid = worker->role;
	mine->generation = worker->generation;
	mine->retire = worker->retire;
	mine->pid = worker->pid;
	mine->stuck = worker->stuck && worker->running_id != 0;
	mine->running_id = worker->running_id;
	mine->running_since = worker->running_since;
	mine->typical = worker->typical;
	mine->unstarted = worker->handed_tail - worker->handed_head;
	mine->taken = worker->nmembers + (worker->running_id != 0 ? 1 : 0);
	SpinLockRelease(&worker->mutex);

	/* see what has changed */
	if (adopt)
	{
		mine->known = true;
		mine->stuck_reported = false;
		mine->role = known_roles_get(role_oid);
		mine->asked_at = GetCurrentTimestamp();
	}
	outstanding = mine->unstarted + mine->taken;
	if (mine->unstarted == 0)
		mine->holds_up = false;
	if (outstanding == 0 && (mine->outstanding > 0 || mine->state != state))
		mine->idle_since = GetCurrentTimestamp();
	mine->outstanding = outstanding;
	if (state == TS_WORKER_READY && mine->state != TS_WORKER_READY)
	{
		mine->role->failed_starts = 0;
		ts_debug(DEBUG1, "worker %d of role %u is ready", mine->pid, mine->role->oid);
	}
	mine->state = state;

	for (int i = 0; i < nreports; i++)
		lookahead_report(&reports[i]);
}

/* Count the workers, in all and of each role. */
static void
worker_pool_count(void)
{
	Role	   *role;

	ts_pool->nworkers = ts_pool->nstaying = 0;
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
		role->nworkers = role->nstaying = role->nstarting = 0;
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		if (!mine->known)
			continue;
		ts_pool->nworkers++;
		mine->role->nworkers++;
		if (!mine->retire)
		{
			ts_pool->nstaying++;
			mine->role->nstaying++;
		}
		if (mine->state != TS_WORKER_READY)
			mine->role->nstarting++;
	}
}

/* Look at all slots, as the scheduler does once in each round. */
void
worker_pool_collect(Oid database)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (worker_pool_is_ours(i, database))
			worker_pool_look(i);
	}
	worker_pool_count();
}

/* Take note that a worker was asked for, whose slot this is. */
void
worker_pool_add(TsWorker *worker, Role *role, TimestampTz now)
{
	PoolWorker *mine = &ts_pool->workers[worker - ts_shared->workers];

	memset(mine, 0, sizeof(*mine));
	mine->known = true;
	SpinLockAcquire(&worker->mutex);
	mine->generation = worker->generation;
	SpinLockRelease(&worker->mutex);
	mine->state = TS_WORKER_ASKED;	/* though it may be there already */
	mine->role = role;
	mine->asked_at = role->asked_at = now;
	ts_pool->nworkers++;
	ts_pool->nstaying++;
	role->nworkers++;
	role->nstaying++;
	role->nstarting++;
}

/* Take back what a worker has not started. */
void
worker_pool_take_back(int slot)
{
	PoolWorker *mine = &ts_pool->workers[slot];
	TsWorker   *worker = &ts_shared->workers[slot];
	TsHanded	handed[TS_HANDED];
	int			n = 0;

	SpinLockAcquire(&worker->mutex);
	if (worker->generation == mine->generation)
	{
		while (worker->handed_head != worker->handed_tail)
			handed[n++] = worker->handed[worker->handed_head++ % TS_HANDED];
	}
	SpinLockRelease(&worker->mutex);

	for (int i = 0; i < n; i++)
	{
		LookaheadTask *task = lookahead_find(handed[i].id);

		if (task != NULL && task->slot == slot)
			lookahead_take_back(task);
	}
	if (n > 0)
		ts_debug(DEBUG2, "scheduler takes %d tasks back from worker %d", n, mine->pid);
	mine->unstarted = 0;
	mine->outstanding = mine->taken;
	mine->holds_up = false;
	mine->ahead_until = DT_NOBEGIN;
}

/* Have a worker leave as soon as its run is over; why is for the log. */
void
worker_pool_retire(int slot, const char *why)
{
	PoolWorker *mine = &ts_pool->workers[slot];

	ts_debug(DEBUG1, "scheduler sends worker %d of role %u away: %s",
			 mine->pid, mine->role->oid, why);

	worker_pool_take_back(slot);
	(void) slot_send_away(slot, mine->generation, false);
	mine->retire = true;
	mine->role->nstaying--;
	ts_pool->nstaying--;
}

/* Take back the wish for a worker that has not been started. */
void
worker_pool_withdraw(int slot)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	PoolWorker *mine = &ts_pool->workers[slot];
	bool		done;

	SpinLockAcquire(&worker->mutex);
	done = (worker->generation == mine->generation && worker->state == TS_WORKER_ASKED);
	if (done)
		worker->state = TS_WORKER_FREE;
	SpinLockRelease(&worker->mutex);
	if (!done)
		return;
	ts_debug(DEBUG1, "scheduler needs no worker for role %u any more", mine->role->oid);
	mine->known = false;
	ts_pool->nworkers--;
	mine->role->nworkers--;
	mine->role->nstarting--;
	if (!mine->retire)
	{
		ts_pool->nstaying--;
		mine->role->nstaying--;
	}
}

/* Have all workers leave, and none come. */
void
worker_pool_dismiss(void)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		if (mine->known && mine->state == TS_WORKER_ASKED)
			worker_pool_withdraw(i);
		if (mine->known && !mine->retire)
			worker_pool_retire(i, "so does the scheduler");
	}
}

/* Return a run that does not end, whatever is done, and that was not yet reported. */
bool
worker_pool_take_stuck(int64 *id, int *pid)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		if (mine->known && mine->stuck && !mine->stuck_reported)
		{
			mine->stuck_reported = true;
			*id = mine->running_id;
			*pid = mine->pid;
			return true;
		}
	}
	return false;
}

/* Return whether the workers have nothing to do, and none is on its way. */
bool
worker_pool_is_calm(void)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		if (mine->known && (mine->state != TS_WORKER_READY || mine->outstanding > 0))
			return false;
	}
	return true;
}

/* Return whether there are none. */
bool
worker_pool_is_empty(void)
{
	return ts_pool->nworkers == 0;
}
