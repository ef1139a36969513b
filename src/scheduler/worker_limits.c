/*-------------------------------------------------------------------------
 *
 * worker_limits.c
 *		How many workers a database has, and each of its roles.
 *
 * Each role with tasks that are due has workers of its own, up to
 * taskshed.max_workers_per_role, and up to taskshed.max_workers in the database
 * together.  If these are lowered, workers leave.
 *
 * When all places are taken, a role that needs one gets that of an idle worker
 * of another role, or of one of the role that has most, until they have the
 * same; a role that has none at all gets that of the worker that has been
 * there longest, after it has had its turn.  A worker that must go finishes
 * its run first.  Its place goes to the role that has fewest workers, and of
 * several to the one that has not been given one for longest.
 *
 * What places there are is for the launcher to say; see fair_share.c.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* There was no slot to ask for a worker with. */
static bool unheard = false;

/* Have workers leave if there are more than there may be. */
void
worker_limits_shrink(void)
{
	for (int i = 0; ts_pool->nstaying > ts_max_workers && i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		if (mine->known && !mine->retire)
			worker_pool_retire(i, "there are more than taskshed.max_workers");
	}
	for (int i = 0; ts_max_workers_per_role > 0 && i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		if (mine->known && !mine->retire && mine->role->nstaying > ts_max_workers_per_role)
			worker_pool_retire(i, "there are more than taskshed.max_workers_per_role");
	}
}

/* Return whether a role has as many workers as it may. */
bool
worker_limits_reached(const Role *role)
{
	return ts_max_workers_per_role > 0 && role->nworkers >= ts_max_workers_per_role;
}

/* Take back the wishes for workers for whom there is nothing to do any more. */
void
worker_limits_withdraw(TimestampTz now)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];
		LookaheadTask *task;

		if (!mine->known || mine->state != TS_WORKER_ASKED)
			continue;
		task = lookahead_first(mine->role);
		if (task == NULL || task->key.run_at > now + TS_START_AHEAD)
			worker_pool_withdraw(i);
	}
}

/* Return whether a worker is idle that another role could make use of. */
static bool
worker_limits_is_idle(const PoolWorker *mine, const Role *wanting)
{
	return worker_pool_is_ready(mine) && mine->role != wanting && mine->outstanding == 0;
}

/*
 * Return the worker whose place a role may have, or -1.  Of several that fit, the
 * one that will be free soonest as far as can be told.
 */
static int
worker_limits_choose_victim(Role *wanting, TimestampTz now)
{
	PoolWorker *workers = ts_pool->workers;
	int			victim = -1;

	/* an idle one; at once only for a role that has none */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &workers[i];

		if (worker_limits_is_idle(mine, wanting) &&
			(wanting->nstaying == 0 || now - mine->idle_since >= PROCESS_TURN))
			return i;
	}

	/* one of the role that has most, if it has more than this one will have */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &workers[i];

		if (!worker_pool_is_ready(mine) || mine->role->nstaying <= wanting->nstaying + 1)
			continue;
		if (victim < 0 || mine->role->nstaying > workers[victim].role->nstaying ||
			(mine->role->nstaying == workers[victim].role->nstaying &&
			 mine->running_since > workers[victim].running_since))
			victim = i;
	}
	if (victim >= 0 || wanting->nstaying > 0)
		return victim;

	/* the one that has been there longest, if it has had its turn */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &workers[i];

		if (worker_pool_is_ready(mine) && now - mine->asked_at >= PROCESS_TURN &&
			(victim < 0 || mine->asked_at < workers[victim].asked_at))
			victim = i;
	}
	return victim;
}

/*
 * Make room for a worker of a role in a pool that is full.  Return when to
 * try again if nothing else happens before.
 */
static TimestampTz
worker_limits_make_room(Role *wanting, TimestampTz now)
{
	int			victim;
	TimestampTz again = DT_NOEND;

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		PoolWorker *mine = &ts_pool->workers[i];

		/* a place that will soon be free is enough */
		if (mine->known && mine->retire && !worker_pool_is_slow(mine, now))
			return now + TS_LONG_RUN_CHECK;
		if (worker_limits_is_idle(mine, wanting))
			again = Min(again, mine->idle_since + PROCESS_TURN);
		else if (worker_pool_is_ready(mine) && wanting->nstaying == 0)
			again = Min(again, Max(mine->asked_at, now) + PROCESS_TURN);
	}
	victim = worker_limits_choose_victim(wanting, now);
	if (victim >= 0)
	{
		worker_pool_retire(victim, "its place is for another role");
		return now + TS_LONG_RUN_CHECK;
	}
	return again;
}

/*
 * Get a worker for a role that needs one, if that can be.  Return when to
 * try again if nothing else happens before.
 */
static TimestampTz
worker_limits_ask_for(Oid database, Role *role, TimestampTz now)
{
	LookaheadTask *first = lookahead_first(role);
	TsWorker   *worker;

	Assert(first != NULL);
	if (role->nstarting > 0)
		return DT_NOEND;
	if (now < role->start_after)
		return role->start_after;
	if (ts_pool->nworkers >= ts_max_workers)
		return worker_limits_make_room(role, now);

	/* have the launcher start one */
	worker = slot_ask(database, role->oid, role->is_superuser,
					  first->key.id, first->key.run_at);
	if (worker == NULL)
	{
		ts_debug(DEBUG1, "scheduler finds no slot for a worker of role %u", role->oid);
		unheard = true;
		return Min(worker_limits_make_room(role, now), now + PROCESS_TURN);
	}
	ts_debug(DEBUG1, "scheduler asks for a worker of role %u, for task " INT64_FORMAT " at %s",
			 role->oid, first->id, timestamptz_to_str(first->key.run_at));
	worker_pool_add(worker, role, now);
	return DT_NOEND;
}

/* qsort: who is given a worker before whom */
static int
worker_limits_cmp(const void *a, const void *b)
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
 * Get workers for roles that need one more each, which are sorted for that.
 * Return when to try again if nothing else happens before.
 */
TimestampTz
worker_limits_ask(Oid database, Role **wanting, int nwanting, TimestampTz now)
{
	TimestampTz again = DT_NOEND;
	bool		was_unheard = unheard;

	unheard = false;
	qsort(wanting, nwanting, sizeof(Role *), worker_limits_cmp);
	for (int i = 0; i < nwanting; i++)
		again = Min(again, worker_limits_ask_for(database, wanting[i], now));
	if (unheard != was_unheard)
		database_set_unheard(database_find(database), unheard);
	return again;
}
