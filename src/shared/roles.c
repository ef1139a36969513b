/*-------------------------------------------------------------------------
 *
 * roles.c
 *		Whether tasks of a role may run here, and when that may have changed.
 *
 * A worker connects as the role, so the role must exist and be allowed to
 * connect.  Whoever starts workers asks here first; a worker asks again
 * before a run if anything about roles has changed since it last did.
 *
 * What a sleeping process is not told by the server's cache invalidation, it
 * is told by the session that changes a role: that counts up role_changes in
 * shared memory when it has committed, and wakes all schedulers (changed_roles.c).
 * Roles are the whole server's, so each of them has to look.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "shared/shared.h"

/* Raised when something in the catalogs changes that roles_check looks at. */
static uint64 generation = 1;

static void
roles_syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	generation++;
}

/* Begin to notice changes: once in a process that asks about roles. */
void
roles_watch(void)
{
	CacheRegisterSyscacheCallback(AUTHOID, roles_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, roles_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(DATABASEOID, roles_syscache_callback, (Datum) 0);
}

/*
 * Return a number that changes whenever roles_check may have another answer,
 * catalogs being read.
 */
uint64
roles_generation(void)
{
	return generation;
}

/*
 * Find out whether tasks of a role may run in this database, and with which
 * rights.  Needs a transaction.
 */
RoleState
roles_check(Oid role, bool *is_superuser)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	Form_pg_authid form;
	bool		can_login;

	*is_superuser = false;
	if (!HeapTupleIsValid(tuple))
		return ROLE_GONE;
	form = (Form_pg_authid) GETSTRUCT(tuple);
	*is_superuser = form->rolsuper;
	can_login = form->rolcanlogin;
	ReleaseSysCache(tuple);

	if (!can_login && !compat_connects_nologin())
		return ROLE_NOLOGIN;
	if (!compat_may_connect(MyDatabaseId, role))
		return ROLE_NOCONNECT;
	if (*is_superuser && !ts_allow_superuser_tasks)
		return ROLE_SUPERUSER;
	return ROLE_OK;
}

/*
 * Say why tasks of a role do not run.  The text is allocated in the
 * transaction, which this needs.
 */
char *
roles_reason(Oid role, RoleState state)
{
	char	   *name = GetUserNameFromId(role, true);

	if (name == NULL)
		return psprintf("role with OID %u does not exist", role);
	switch (state)
	{
		case ROLE_NOLOGIN:
			return psprintf("role \"%s\" is not permitted to log in", name);
		case ROLE_NOCONNECT:
			return psprintf("role \"%s\" is not permitted to connect to the database", name);
		case ROLE_SUPERUSER:
			return psprintf("role \"%s\" is a superuser, and taskshed.allow_superuser_tasks is off",
							name);
		default:
			return psprintf("role \"%s\" can run its tasks", name);
	}
}
