/*-------------------------------------------------------------------------
 *
 * pool.c
 *		The scheduler's workers: who gets which task, and how many there are.
 *
 * Each role with tasks that are due has workers of its own, up to
 * taskshed.max_workers in the database together.  A task that is due, or will
 * be in a moment, goes to an idle worker of its role.  If there is none, it
 * goes behind the run of a busy one, as long as that run has not been going on
 * for long; and a new worker is asked for.  Tasks behind a run that turns out
 * to be long are taken back.
 *
 * When all places are taken, a role that needs one gets that of an idle worker
 * of another role, or of one of the role that has most, until they have the
 * same; a role that has none at all gets that of the worker that has been
 * there longest, after it has had its turn.  A worker that must go finishes
 * its run first.  Its place goes to the role that has fewest workers, and of
 * several to the one that has not been given one for longest.
 *
 * A role whose tasks must not run gets no worker.  One whose worker fails to
 * start for any other reason is left alone for a while, longer each time unless
 * there is not enough of something, which may be over any moment.
 * Other roles are not affected.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* A run longer than this (us) holds up the tasks behind it. */
#define LONG_RUN			2000

/* How soon (us) to look whether a run with tasks behind it has become long. */
#define LONG_RUN_CHECK		5000

/* A worker is started this long (us) before its role's next task is due. */
#define START_AHEAD			250000

/* How soon (us) to look whether the next of several suspects may run. */
#define SUSPECT_DELAY		100000

/* One slot, as last seen. */
typedef struct PoolWorker
{
	bool		known;			/* it is one of ours */
	uint32		generation;
	TsWorkerState state;
	Role	   *role;
	TimestampTz asked_at;
	int			outstanding;	/* handed out and not reported */
	int			unstarted;		/* of these, not taken by the worker yet */
	bool		retire;
	bool		shortage;		/* why it has gone, if it was not ready */
	TimestampTz idle_since;		/* with outstanding = 0 */
	int			pid;
	bool		stuck;			/* its run does not end, whatever is done */
	bool		stuck_reported;
	int64		running_id;		/* 0 between runs */
	TimestampTz running_since;
} PoolWorker;

static PoolWorker *pool = NULL;

/* Totals over the pool, kept by pool_collect. */
static int	nworkers;
static int	nstaying;			/* those that are not to leave */

/* There was no slot to ask for a worker with. */
static bool unheard;

/* A worker of ours has gone, or never come. */
static void
pool_lost(int slot, int64 running_id, const LostRun *lost)
{
	PoolWorker *mine = &pool[slot];
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

/* Takes over a worker that an earlier scheduler of this database has left. */
static void
pool_adopt(int slot, TsWorker *worker)
{
	int64		running_id;
	Oid			role_oid;

	/* what it has not started will be read from the table */
	SpinLockAcquire(&worker->mutex);
	worker->handed_head = worker->handed_tail;
	running_id = worker->running_id;
	role_oid = worker->role;
	SpinLockRelease(&worker->mutex);

	if (running_id != 0)
		lookahead_adopt(running_id, role_oid, slot);
}

/*
 * Looks at all slots: which workers have come and gone, what they have
 * reported, how far they are.
 */
void
pool_collect(Oid database)
{
	Role	   *role;

	if (pool == NULL)
		pool = MemoryContextAllocZero(TopMemoryContext,
									  ts_shared->nslots * sizeof(PoolWorker));

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &pool[i];
		TsWorker   *worker = &ts_shared->workers[i];
		TsReport	reports[TS_REPORTS];
		int			nreports = 0;
		int			outstanding;
		bool		ours;
		bool		gone;
		bool		adopt;
		int64		running_id;
		Oid			role_oid;
		TsWorkerState state;

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
				.slot = i,
				.owner = worker->role,
				.timed_out = worker->timed_out,
				.bystander = worker->bystander
			};

			if (same)
				mine->retire = worker->retire;
			mine->shortage = same && worker->shortage;
			SpinLockRelease(&worker->mutex);
			if (mine->known)
				pool_lost(i, same ? running_id : 0, &lost);
			else				/* it has gone together with an earlier
								 * scheduler */
				lost_runs_add(running_id, &lost);
			SpinLockAcquire(&worker->mutex);
			ours = (worker->state != TS_WORKER_FREE && worker->database == database);
		}
		if (!ours)
		{
			SpinLockRelease(&worker->mutex);
			continue;
		}
		adopt = !mine->known;
		SpinLockRelease(&worker->mutex);
		if (adopt)
			pool_adopt(i, worker);

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
		mine->unstarted = worker->handed_tail - worker->handed_head;
		SpinLockRelease(&worker->mutex);

		if (adopt)
		{
			mine->known = true;
			mine->stuck_reported = false;
			mine->role = known_roles_get(role_oid);
			mine->asked_at = GetCurrentTimestamp();
		}
		outstanding = mine->unstarted + (mine->running_id != 0 ? 1 : 0);
		if (outstanding == 0 && (mine->outstanding > 0 || mine->state != state))
			mine->idle_since = GetCurrentTimestamp();
		mine->outstanding = outstanding;
		if (state == TS_WORKER_READY && mine->state != TS_WORKER_READY)
		{
			mine->role->failed_starts = 0;
			ts_debug(DEBUG1, "worker %d of role %u is ready", mine->pid, mine->role->oid);
		}
		mine->state = state;
		for (int j = 0; j < nreports; j++)
			lookahead_report(&reports[j]);
	}

	nworkers = nstaying = 0;
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
		role->nworkers = role->nstaying = role->nstarting = 0;
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (!pool[i].known)
			continue;
		nworkers++;
		pool[i].role->nworkers++;
		if (!pool[i].retire)
		{
			nstaying++;
			pool[i].role->nstaying++;
		}
		if (pool[i].state != TS_WORKER_READY)
			pool[i].role->nstarting++;
	}
}

/* Has a worker been at its run for long?  The clock may have been set back since it began. */
static bool
pool_is_slow(const PoolWorker *mine, TimestampTz now)
{
	return mine->running_id != 0 &&
		(now - mine->running_since > LONG_RUN || mine->running_since - now > USECS_PER_SEC);
}

/* Is a worker there to take tasks, and to stay? */
static bool
pool_is_ready(const PoolWorker *mine)
{
	return mine->known && !mine->retire && mine->state == TS_WORKER_READY;
}

/* Takes back what a worker has not started. */
static void
pool_take_back(int slot)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	TsHanded	handed[TS_HANDED];
	int			n = 0;

	SpinLockAcquire(&worker->mutex);
	if (worker->generation == pool[slot].generation)
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
		ts_debug(DEBUG2, "scheduler takes %d tasks back from worker %d", n, pool[slot].pid);
	pool[slot].unstarted = 0;
	pool[slot].outstanding = pool[slot].running_id != 0 ? 1 : 0;
}

/* Has a worker leave as soon as its run is over; why is for the log. */
static void
pool_retire(int slot, const char *why)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	PGPROC	   *proc = NULL;

	ts_debug(DEBUG1, "scheduler sends worker %d of role %u away: %s",
			 pool[slot].pid, pool[slot].role->oid, why);

	pool_take_back(slot);
	SpinLockAcquire(&worker->mutex);
	if (worker->generation == pool[slot].generation)
	{
		worker->retire = true;
		proc = worker->proc;
	}
	SpinLockRelease(&worker->mutex);
	if (proc != NULL)
		SetLatch(&proc->procLatch);
	pool[slot].retire = true;
	pool[slot].role->nstaying--;
	nstaying--;
}

/* A run that does not end, whatever is done, and that was not yet reported. */
bool
pool_take_stuck(int64 *id, int *pid)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (pool[i].known && pool[i].stuck && !pool[i].stuck_reported)
		{
			pool[i].stuck_reported = true;
			*id = pool[i].running_id;
			*pid = pool[i].pid;
			return true;
		}
	}
	return false;
}

/* Takes back the wish for a worker that has not been started. */
static void
pool_withdraw(int slot)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	PoolWorker *mine = &pool[slot];
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
	nworkers--;
	mine->role->nworkers--;
	mine->role->nstarting--;
	if (!mine->retire)
	{
		nstaying--;
		mine->role->nstaying--;
	}
}

/* Has all workers leave, and none come. */
void
pool_dismiss(void)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (pool[i].known && pool[i].state == TS_WORKER_ASKED)
			pool_withdraw(i);
		if (pool[i].known && !pool[i].retire)
			pool_retire(i, "so does the scheduler");
	}
}

/* Have the workers nothing to do, and is none on its way? */
bool
pool_is_calm(void)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (pool[i].known && (pool[i].state != TS_WORKER_READY || pool[i].outstanding > 0))
			return false;
	}
	return true;
}

/* Are there none? */
bool
pool_is_empty(void)
{
	return nworkers == 0;
}

/* The worker of a role that a task is best handed to, or -1. */
static int
pool_choose(Role *role, TimestampTz now)
{
	int			best = -1;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &pool[i];

		if (!pool_is_ready(mine) || mine->role != role ||
			mine->outstanding >= TS_HANDED || pool_is_slow(mine, now))
			continue;
		if (best < 0 || mine->outstanding < pool[best].outstanding)
			best = i;
	}
	return best;
}

/* Hands a task to a worker.  Returns false if it has just decided to leave. */
static bool
pool_hand_out(LookaheadTask *task, int slot, TimestampTz now)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	PGPROC	   *proc = NULL;
	bool		done;

	SpinLockAcquire(&worker->mutex);
	done = (worker->generation == pool[slot].generation &&
			worker->state == TS_WORKER_READY && !worker->retire &&
			worker->handed_tail - worker->handed_head < TS_HANDED);
	if (done)
	{
		worker->handed[worker->handed_tail++ % TS_HANDED] = (TsHanded)
		{
			task->id, task->key.run_at, task->place
		};
		if (worker->running_id == 0)
			proc = worker->proc;
	}
	SpinLockRelease(&worker->mutex);

	if (done)
	{
		ts_debug(DEBUG2, "scheduler hands task " INT64_FORMAT " to worker %d", task->id, pool[slot].pid);
		lookahead_hand_out(task, slot, now);
		pool[slot].outstanding++;
		pool[slot].unstarted++;
		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
	else
		pool[slot].retire = true;
	return done;
}

/* Is a worker idle that another role could make use of? */
static bool
pool_is_idle(const PoolWorker *mine, const Role *wanting)
{
	return pool_is_ready(mine) && mine->role != wanting && mine->outstanding == 0;
}

/*
 * The worker whose place a role may have, or -1.  Of several that fit, the
 * one that will be free soonest as far as can be told.
 */
static int
pool_choose_victim(Role *wanting, TimestampTz now)
{
	int			victim = -1;

	/* an idle one; at once only for a role that has none */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (pool_is_idle(&pool[i], wanting) &&
			(wanting->nstaying == 0 || now - pool[i].idle_since >= PROCESS_TURN))
			return i;
	}

	/* one of the role that has most, if it has more than this one will have */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &pool[i];

		if (!pool_is_ready(mine) || mine->role->nstaying <= wanting->nstaying + 1)
			continue;
		if (victim < 0 || mine->role->nstaying > pool[victim].role->nstaying ||
			(mine->role->nstaying == pool[victim].role->nstaying &&
			 mine->running_since > pool[victim].running_since))
			victim = i;
	}
	if (victim >= 0 || wanting->nstaying > 0)
		return victim;

	/* the one that has been there longest, if it has had its turn */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &pool[i];

		if (pool_is_ready(mine) && now - mine->asked_at >= PROCESS_TURN &&
			(victim < 0 || mine->asked_at < pool[victim].asked_at))
			victim = i;
	}
	return victim;
}

/*
 * Makes room for a worker of a role in a pool that is full.  Returns when to
 * try again if nothing else happens before.
 */
static TimestampTz
pool_make_room(Role *wanting, TimestampTz now)
{
	int			victim;
	TimestampTz again = DT_NOEND;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		/* a place that will soon be free is enough */
		if (pool[i].known && pool[i].retire && !pool_is_slow(&pool[i], now))
			return now + LONG_RUN_CHECK;
		if (pool_is_idle(&pool[i], wanting))
			again = Min(again, pool[i].idle_since + PROCESS_TURN);
		else if (pool_is_ready(&pool[i]) && wanting->nstaying == 0)
			again = Min(again, Max(pool[i].asked_at, now) + PROCESS_TURN);
	}
	victim = pool_choose_victim(wanting, now);
	if (victim >= 0)
	{
		pool_retire(victim, "its place is for another role");
		return now + LONG_RUN_CHECK;
	}
	return again;
}

/*
 * Gets a worker for a role that needs one, if that can be.  Returns when to
 * try again if nothing else happens before.
 */
static TimestampTz
pool_ask(Oid database, Role *role, TimestampTz now)
{
	LookaheadTask *first = lookahead_first(role);
	TsWorker   *worker;
	PoolWorker *mine;

	Assert(first != NULL);
	if (role->nstarting > 0)
		return DT_NOEND;
	if (now < role->start_after)
		return role->start_after;
	if (nworkers >= ts_max_workers)
		return pool_make_room(role, now);

	worker = slot_ask(database, role->oid, role->is_superuser,
					  first->key.id, first->key.run_at);
	if (worker == NULL)
	{
		ts_debug(DEBUG1, "scheduler finds no slot for a worker of role %u", role->oid);
		unheard = true;
		return Min(pool_make_room(role, now), now + PROCESS_TURN);
	}
	ts_debug(DEBUG1, "scheduler asks for a worker of role %u, for task " INT64_FORMAT " at %s",
			 role->oid, first->id, timestamptz_to_str(first->key.run_at));
	mine = &pool[worker - ts_shared->workers];
	memset(mine, 0, sizeof(*mine));
	mine->known = true;
	SpinLockAcquire(&worker->mutex);
	mine->generation = worker->generation;
	SpinLockRelease(&worker->mutex);
	mine->state = TS_WORKER_ASKED;	/* though it may be there already */
	mine->role = role;
	mine->asked_at = role->asked_at = now;
	nworkers++;
	nstaying++;
	role->nworkers++;
	role->nstaying++;
	role->nstarting++;
	return DT_NOEND;
}

/* Has a role as many workers as it may? */
static bool
pool_is_at_limit(const Role *role)
{
	return ts_max_workers_per_role > 0 && role->nworkers >= ts_max_workers_per_role;
}

/* Says in the view status which role's tasks wait for a worker in vain. */
static void
pool_tell_failing(Oid database, const Role *failing)
{
	static char told[256] = "";
	char		message[256] = "";

	if (failing != NULL && failing->reason != NULL)
		strlcpy(message, failing->reason, sizeof(message));
	else if (failing != NULL)
		snprintf(message, sizeof(message),
				 "workers of the role with OID %u do not start; see the server log", failing->oid);
	if (strcmp(message, told) != 0)
	{
		strlcpy(told, message, sizeof(told));
		database_set_message(database_find(database), message);
	}
}

/* qsort: who is given a worker before whom */
static int
pool_cmp_wanting(const void *a, const void *b)
{
	const Role *x = *(Role *const *) a;
	const Role *y = *(Role *const *) b;

	if (x->nstaying != y->nstaying)
		return x->nstaying < y->nstaying ? -1 : 1;
	if (x->asked_at != y->asked_at)
		return x->asked_at < y->asked_at ? -1 : 1;
	return 0;
}

/*
 * Hands out what is due and sees to it that there are workers.  Returns when
 * there will be something to do again if nothing happens before, and whether
 * anything that is due is left.
 */
TimestampTz
pool_dispatch(Oid database, TimestampTz now, bool *backlog)
{
	TimestampTz wake = DT_NOEND;
	Role	   *role;
	Role	   *failing = NULL;
	Role	  **wanting = palloc(known_roles_count() * sizeof(Role *));
	int			nwanting = 0;
	bool		was_unheard = unheard;

	*backlog = unheard = false;
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (pool[i].known && pool[i].unstarted > 0 && pool_is_slow(&pool[i], now))
			pool_take_back(i);
	}
	for (int i = 0; nstaying > ts_max_workers && i < ts_shared->nslots; i++)
	{
		if (pool[i].known && !pool[i].retire)
			pool_retire(i, "there are more than taskshed.max_workers");
	}
	for (int i = 0; ts_max_workers_per_role > 0 && i < ts_shared->nslots; i++)
	{
		if (pool[i].known && !pool[i].retire &&
			pool[i].role->nstaying > ts_max_workers_per_role)
			pool_retire(i, "there are more than taskshed.max_workers_per_role");
	}

	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
	{
		LookaheadTask *task;

		while ((task = lookahead_first(role)) != NULL && task->key.run_at <= now + TS_HAND_AHEAD)
		{
			int			slot = pool_choose(role, now);

			if (slot < 0 || (task->key.run_at > now && pool[slot].outstanding > 0))
				break;
			if (lookahead_must_wait(task, now))
			{
				ts_debug(DEBUG1, "task " INT64_FORMAT " is put off: it was interrupted, as another that is running",
						 task->id);
				lookahead_put_off(task, now + SUSPECT_DELAY);
				continue;
			}
			(void) pool_hand_out(task, slot, now);
		}
		if (task == NULL)
			continue;

		*backlog = *backlog || task->key.run_at <= now;
		if (role->state != ROLE_OK)
		{
			if (task->key.run_at <= now)
				failing = role;
			else if (role->state == ROLE_GONE)
				wake = Min(wake, task->key.run_at);
		}
		else if (task->key.run_at <= now)
		{
			if (!pool_is_at_limit(role))
				wanting[nwanting++] = role;
		}
		else if (role->nstaying == 0 && task->key.run_at - START_AHEAD <= now)
		{
			if (!pool_is_at_limit(role))
				wanting[nwanting++] = role;
			wake = Min(wake, task->key.run_at);
		}
		else if (role->nstaying == 0)
			wake = Min(wake, task->key.run_at - START_AHEAD);
		else if (task->key.run_at - TS_HAND_AHEAD > now)
			wake = Min(wake, task->key.run_at - TS_HAND_AHEAD);
		else
			wake = Min(wake, task->key.run_at);
	}

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		LookaheadTask *task;

		if (!pool[i].known || pool[i].state != TS_WORKER_ASKED)
			continue;
		task = lookahead_first(pool[i].role);
		if (task == NULL || task->key.run_at > now + START_AHEAD)
			pool_withdraw(i);
	}

	qsort(wanting, nwanting, sizeof(Role *), pool_cmp_wanting);
	for (int i = 0; i < nwanting; i++)
	{
		wake = Min(wake, pool_ask(database, wanting[i], now));
		if (wanting[i]->failed_starts > 0)
			failing = wanting[i];
	}
	pfree(wanting);
	pool_tell_failing(database, failing);
	if (unheard != was_unheard)
		database_set_unheard(database_find(database), unheard);

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (pool[i].known && pool[i].unstarted > 0 && pool[i].outstanding > 1)
			wake = Min(wake, now + LONG_RUN_CHECK);
	}
	return wake;
}
