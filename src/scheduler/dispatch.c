/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *		Which task goes to which worker, and when.
 *
 * A task that is due, or will be in a moment, goes to an idle worker of its
 * role.  If there is none, it goes behind the run of a busy one, as long as that
 * run has not been going on for long; and a new worker is asked for, which
 * worker_limits.c does.  Tasks behind a run that turns out to be long are taken
 * back.
 *
 * A worker whose runs are short gets those of the next moments at once, each of
 * which has its own time.  It tells us itself if one of them turns out to be long.
 *
 * A role whose tasks must not run gets no worker.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/latch.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* How soon (us) to look whether the next of several suspects may run. */
#define SUSPECT_DELAY		100000

/*
 * Take back what waits behind runs that have turned out to be long, and what may not be
 * what it was when it was handed out ahead of its time.
 */
static void
dispatch_take_back(TimestampTz now)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		bool		recall = lookahead_take_recall(i);

		if (mine->known && mine->unstarted > 0 && (recall || worker_pool_is_slow(mine, now)))
			worker_pool_take_back(i);
	}
}

/*
 * Return when to look whether a run that something waits behind has turned out to be
 * long: soon if there is a run, or what waits is due, else when that should have been
 * run; DT_NOEND if nothing waits.
 */
static TimestampTz
dispatch_look_again(TimestampTz now)
{
	TimestampTz when = DT_NOEND;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		if (mine->known && mine->unstarted > 0 && mine->outstanding > 1)
			when = Min(when, mine->holds_up || mine->taken > 0 ? now : Max(now, mine->ahead_until));
	}
	return when == DT_NOEND ? when : when + TS_LONG_RUN_CHECK;
}

/*
 * Return how many tasks are before one that is due with a worker: those whose times are
 * to come are not.
 */
static int
dispatch_load(const PoolWorker *mine, TimestampTz now)
{
	return mine->ahead_until > now && !mine->holds_up ? mine->taken : mine->outstanding;
}

/*
 * Return the worker of a role that a task that is due is best handed to, or -1; of
 * several that are as busy the one that has least to come.
 */
static int
dispatch_choose(Role *role, TimestampTz now)
{
	int			best = -1;
	int			least = 0;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];
		int			load;

		if (!worker_pool_is_ready(mine) || mine->role != role ||
			mine->outstanding >= TS_HANDED || worker_pool_is_slow(mine, now))
			continue;
		load = dispatch_load(mine, now);
		if (best < 0 || load < least ||
			(load == least && mine->outstanding < ts_pool->workers[best].outstanding))
		{
			best = i;
			least = load;
		}
	}
	return best;
}

/*
 * Return the worker of a role that a task is best handed to whose time is to come, or
 * -1 if none is to have it yet: one that has others that are due before, and should be
 * done with them by then, or one that is idle, if possible one whose runs are short.
 */
static int
dispatch_choose_ahead(Role *role, TimestampTz run_at, TimestampTz now)
{
	int			idle = -1;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];
		bool		is_short;

		if (!worker_pool_is_ready(mine) || mine->role != role || worker_pool_is_slow(mine, now))
			continue;
		is_short = (mine->typical > 0 && mine->typical <= TS_SHORT_RUN);
		if (mine->outstanding == 0 && (idle < 0 || is_short))
			idle = i;
		else if (mine->outstanding > 0 && is_short && !mine->holds_up &&
				 mine->ahead_until > now && mine->ahead_until <= run_at &&
				 mine->outstanding < TS_HANDED / 2)
			return i;
	}
	return run_at <= now + TS_HAND_AHEAD ? idle : -1;
}

/* Hand a task to a worker, unless it has just decided to leave. */
static void
dispatch_to(LookaheadTask *task, int slot, TimestampTz now)
{
	PoolWorker *mine = &ts_pool->workers[slot];
	TsWorker   *worker = &ts_shared->workers[slot];
	PGPROC	   *proc = NULL;
	bool		done;

	SpinLockAcquire(&worker->mutex);
	done = (worker->generation == mine->generation &&
			worker->state == TS_WORKER_READY && !worker->retire &&
			worker->handed_tail - worker->handed_head < TS_HANDED);
	if (done)
	{
		worker->handed[worker->handed_tail++ % TS_HANDED] = (TsHanded)
		{
			task->id, task->key.run_at, task->alarm_tid
		};
		if (worker->running_id == 0)
			proc = worker->proc;
	}
	SpinLockRelease(&worker->mutex);

	if (done)
	{
		ts_debug(DEBUG2, "scheduler hands task " INT64_FORMAT " to worker %d", task->id, mine->pid);
		lookahead_hand_out(task, slot, now);
		if (task->key.run_at > now)
			mine->ahead_until = task->key.run_at + 2 * mine->typical;
		else if (mine->outstanding > 0)
			mine->holds_up = true;
		mine->outstanding++;
		mine->unstarted++;
		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
	else
		mine->retire = true;
}

/*
 * Hand out what a role has to do, as far as its workers can take it.  Return the
 * first task that is left, or NULL.
 */
static LookaheadTask *
dispatch_hand_out(Role *role, TimestampTz now)
{
	LookaheadTask *task;

	while ((task = lookahead_first(role)) != NULL && task->key.run_at <= now + TS_HAND_FAR_AHEAD)
	{
		int			slot = task->key.run_at > now ?
		dispatch_choose_ahead(role, task->key.run_at, now) : dispatch_choose(role, now);

		if (slot < 0)
			break;
		if (lookahead_must_wait(task, now))
		{
			ts_debug(DEBUG1, "task " INT64_FORMAT " is put off: it was interrupted, as another that is running",
					 task->id);
			lookahead_put_off(task, now + SUSPECT_DELAY);
			continue;
		}
		dispatch_to(task, slot, now);
	}
	return task;
}

/* Return whether a role needs one more worker for the first task that is left. */
static bool
dispatch_needs_worker(const Role *role, const LookaheadTask *task, TimestampTz now)
{
	if (role->state != ROLE_OK)
		return false;
	return task->key.run_at <= now ||
		(role->nstaying == 0 && task->key.run_at - TS_START_AHEAD <= now);
}

/*
 * Return when there is something to do for the first task of a role that is left.
 * If it is due, that is when a worker is there for it, which tells us.
 */
static TimestampTz
dispatch_wake(const Role *role, const LookaheadTask *task, TimestampTz now)
{
	TimestampTz run_at = task->key.run_at;
	TimestampTz before;

	if (run_at <= now)
		return DT_NOEND;
	if (role->state == ROLE_GONE)
		return run_at;			/* it fails then */
	if (role->state != ROLE_OK)
		return DT_NOEND;
	before = run_at - (role->nstaying == 0 ? TS_START_AHEAD : TS_HAND_AHEAD);
	return before > now ? before : run_at;
}

/* Say in the view status which role's tasks wait for a worker in vain. */
static void
dispatch_tell_failing(Oid database, const Role *failing)
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

/*
 * Hand out what is due and see to it that there are workers.  Return when there
 * will be something to do again if nothing happens before; backlog is whether
 * anything that is due is left, hungry whether a worker that becomes idle is of use
 * before that.
 */
TimestampTz
dispatch_round(Oid database, TimestampTz now, bool *backlog, bool *hungry)
{
	TimestampTz wake = DT_NOEND;
	Role	   *role;
	Role	   *failing = NULL;
	Role	  **wanting = palloc(known_roles_count() * sizeof(Role *));
	int			nwanting = 0;

	/* what is with workers that are not to have it */
	dispatch_take_back(now);
	worker_limits_shrink();

	/* hand out, and look what is left */
	*backlog = false;
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
	{
		LookaheadTask *task = dispatch_hand_out(role, now);

		if (task == NULL)
			continue;
		if (task->key.run_at <= now)
		{
			*backlog = true;
			if (role->state != ROLE_OK)
				failing = role;
		}
		if (dispatch_needs_worker(role, task, now) && !worker_limits_reached(role))
			wanting[nwanting++] = role;
		wake = Min(wake, dispatch_wake(role, task, now));
	}

	/*
	 * say who waits in vain; the launcher may say more when it is asked for
	 * workers
	 */
	for (int i = 0; i < nwanting; i++)
	{
		if (wanting[i]->failed_starts > 0)
			failing = wanting[i];
	}
	dispatch_tell_failing(database, failing);

	/* have as many workers come as are needed, and no more */
	worker_limits_withdraw(now);
	wake = Min(wake, worker_limits_ask(database, wanting, nwanting, now));
	pfree(wanting);

	*hungry = *backlog || nwanting > 0;
	return Min(wake, dispatch_look_again(now));
}
