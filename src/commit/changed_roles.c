/*-------------------------------------------------------------------------
 *
 * changed_roles.c
 *		Noticing that roles have changed, or what they may do.
 *
 * A task runs only while its owner may connect to the database (roles.c).  A
 * process that sleeps does not look at the messages by which the server keeps caches
 * up to date.  So a session that executes a command that can make a difference
 * tells all schedulers when it has committed.  Roles are the whole server's, and so
 * all databases have to look.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "nodes/parsenodes.h"
#include "utils/resowner.h"

#include "commit/commit.h"

/* This transaction may have changed them. */
static bool changed = false;

/*
 * Tell all schedulers to look up again what they know of roles.  Of those that are
 * away, which do so when they come, call only those that have tasks waiting for
 * that: anybody can change roles all the time.  Nothing here can fail.
 */
void
changed_roles_tell_all(void)
{
	pg_atomic_fetch_add_u32(&ts_shared->role_changes, 1);
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		bool		locked_out;

		SpinLockAcquire(&db->mutex);
		locked_out = db->locked_out;
		SpinLockRelease(&db->mutex);
		if (locked_out)
			database_end_sleep(db);
		database_wake_scheduler(db);
	}
}

static void
changed_roles_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && changed)
		prepared_mark(PREPARED_ROLES);
	if (event == XACT_EVENT_PREPARE)
		changed = false;
}

/*
 * Tell at the end of the transaction.  Others can learn of a changed role only
 * when the server has told everybody that their caches are out of date, which
 * comes after the callbacks of a commit and before the locks are released.
 */
static void
changed_roles_release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (!changed || !is_top_level || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	changed = false;
	if (is_commit)
		changed_roles_tell_all();
}

/* Set the callbacks: once a process, and only with shared memory. */
void
changed_roles_init(void)
{
	RegisterXactCallback(changed_roles_xact_callback, NULL);
	RegisterResourceReleaseCallback(changed_roles_release_callback, NULL);
}

/* Return whether a statement can change what roles_check looks at. */
static bool
changed_roles_by(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterRoleStmt:
		case T_DropRoleStmt:
		case T_GrantRoleStmt:
		case T_DropOwnedStmt:
		case T_ReassignOwnedStmt:	/* databases, too */
			return true;
		case T_RenameStmt:
			return ((const RenameStmt *) statement)->renameType == OBJECT_ROLE;
		case T_GrantStmt:
			return ((const GrantStmt *) statement)->objtype == OBJECT_DATABASE;
		case T_AlterOwnerStmt:
			return ((const AlterOwnerStmt *) statement)->objectType == OBJECT_DATABASE;
		default:
			return false;
	}
}

/* Remember that roles may change by a statement, which is about to be executed. */
void
changed_roles_note(const Node *statement)
{
	if (changed_roles_by(statement))
		changed = true;
}

/* Remember that roles may have changed in a way that is not known here. */
void
changed_roles_note_any(void)
{
	changed = true;
}
