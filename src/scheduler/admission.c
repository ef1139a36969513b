/*-------------------------------------------------------------------------
 *
 * admission.c
 *		The scheduler's part in keeping roles out whose tasks must not run.
 *
 * Before a role is given its first worker, and whenever something about roles
 * has changed, it is looked up whether its tasks may run.  If not:
 *
 *	- its workers leave, and runs that they are at end as if the worker had
 *	  been terminated;
 *	- its tasks wait, which the log and the view status say, and go on when
 *	  the role has been let in again;
 *	- but those of a role that does not exist any more fail when they are due:
 *	  it never comes back.  They can be given to another role, or removed.
 *
 * A worker whose role has lost or gained the rights of a superuser leaves too,
 * for the server has kept in mind as what it had connected.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* Roles are looked up this often (us) even if nobody has told of a change. */
#define CHECK_INTERVAL	(60 * USECS_PER_SEC)

/*
 * And not more often than this (us) when somebody has: anybody can change
 * roles all the time.
 */
#define CHANGE_INTERVAL	(100 * INT64CONST(1000))

/* Tasks of a role that is gone fail so many at a time. */
#define ORPHANS_BATCH	1000

/* One that has failed, or that somebody is changing, is looked at again (us). */
#define ORPHAN_RECHECK	USECS_PER_SEC

/* What the counter of changes in shared memory was when roles were last looked up. */
static uint32 changes = 0;

/*
 * Have all roles be looked up again if anything may have changed.  Return when
 * to do so if it is too early; DT_NOEND otherwise.
 */
static TimestampTz
admission_expire_checks(TimestampTz now)
{
	static TimestampTz checked_at = 0;
	static bool allow_superusers = true;
	uint32		changes_now = pg_atomic_read_u32(&ts_shared->role_changes);
	Role	   *role;

	if (changes_now == changes && allow_superusers == ts_allow_superuser_tasks &&
		now - checked_at < CHECK_INTERVAL)
		return DT_NOEND;
	if (now - checked_at >= 0 && now - checked_at < CHANGE_INTERVAL)
		return checked_at + CHANGE_INTERVAL;
	if (now - checked_at >= CHECK_INTERVAL)
		known_roles_prune();
	changes = changes_now;
	allow_superusers = ts_allow_superuser_tasks;
	checked_at = now;
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
		role->checked = false;
	return DT_NOEND;
}

/* Return whether nobody has told of a change since.  Takes no lock. */
bool
admission_is_current(void)
{
	return pg_atomic_read_u32(&ts_shared->role_changes) == changes;
}

/*
 * Return whether a role is to be looked up: it has tasks or workers, and
 * nobody has, or something has changed since.
 */
static bool
admission_must_check(Role *role)
{
	return !role->checked && (lookahead_first(role) != NULL || role->nworkers > 0);
}

/* Look a role up. */
static void
admission_check_role(Role *role)
{
	RoleState	state = roles_check(role->oid, &role->is_superuser);
	bool		changed = (state != role->state);

	role->checked = true;
	role->state = state;
	if (changed)
	{
		/* whatever kept its workers from starting, it is over */
		role->failed_starts = 0;
		role->start_after = 0;
	}
	if (role->reason != NULL)
		pfree(role->reason);
	role->reason = NULL;
	if (state == ROLE_OK)
		return;
	role->reason = MemoryContextStrdup(TopMemoryContext, roles_reason(role->oid, state));
	if (changed && state != ROLE_GONE)
		ereport(LOG,
				(errmsg("tasks of a role have to wait: %s", role->reason)));
}

/* End the workers of a role that must not go on as what they are. */
static void
admission_end_workers(Oid database, const Role *role)
{
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];
		PGPROC	   *proc = NULL;
		int			pid = 0;

		SpinLockAcquire(&worker->mutex);
		if (worker->state != TS_WORKER_FREE && worker->database == database &&
			worker->role == role->oid &&
			(role->state != ROLE_OK || worker->is_superuser != role->is_superuser))
		{
			worker->retire = true;
			proc = worker->proc;
			/* one who has become a superuser may end its run as it was */
			if (worker->running_id != 0 && (role->state != ROLE_OK || worker->is_superuser))
			{
				pid = worker->pid;
				worker->bystander = true;
			}
		}
		SpinLockRelease(&worker->mutex);
		if (proc != NULL)
			SetLatch(&proc->procLatch);
		if (pid != 0)
			kill(pid, SIGTERM);
	}
}

/*
 * Return whether a role that is gone has tasks that are due, and no worker any
 * more.
 */
static bool
admission_has_orphans(Role *role, TimestampTz now)
{
	LookaheadTask *task = lookahead_first(role);

	return role->checked && role->state == ROLE_GONE && role->nworkers == 0 &&
		task != NULL && task->key.run_at <= now;
}

/*
 * Let the due tasks of roles fail that do not exist.  Return whether there may
 * be more.  Whether a task has failed is only known when this has committed,
 * so it is looked at again then.
 */
static bool
admission_fail_orphans(TimestampTz now)
{
	Store	   *store = store_try_open(RowExclusiveLock);
	Role	   *role;
	int			n = 0;

	if (store == NULL)
		return false;
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
	{
		while (n < ORPHANS_BATCH && admission_has_orphans(role, now))
		{
			LookaheadTask *task = lookahead_first(role);

			if (outcome_orphaned(store, task->id, role->oid, role->reason))
				lookahead_look_again(task);
			else
			{
				ts_debug(DEBUG1, "task " INT64_FORMAT " is put off: its role is gone, and somebody is changing it",
						 task->id);
				lookahead_put_off(task, now + ORPHAN_RECHECK);
			}
			n++;
		}
	}
	store_close(store, NoLock);
	return n == ORPHANS_BATCH;
}

/*
 * Return whether there is anything to be done, once in each round of the
 * scheduler.  again is when to ask again if nothing else happens before.
 */
bool
admission_is_needed(TimestampTz *again)
{
	TimestampTz now = GetCurrentTimestamp();
	Role	   *role;
	bool		needed = false;

	*again = admission_expire_checks(now);
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
		needed = needed || admission_must_check(role) || admission_has_orphans(role, now);
	return needed;
}

/*
 * Look up the roles for which that is needed, in a transaction with an active
 * snapshot, and do what follows.  Return whether there may be more to do.
 */
bool
admission_check(Oid database)
{
	Role	   *role;

	AcceptInvalidationMessages();
	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
	{
		if (!admission_must_check(role))
			continue;
		admission_check_role(role);
		if (role->nworkers > 0)
			admission_end_workers(database, role);
	}
	return admission_fail_orphans(GetCurrentTimestamp());
}
