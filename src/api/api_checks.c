/*-------------------------------------------------------------------------
 *
 * api_checks.c
 *		What our functions check, whatever they do: the call, and owners,
 *		selectors, ids and times that they are given.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "api/api.h"

/*
 * Refuse to work for those who have no USAGE on our schema: 42501.  The server
 * asks for that where a name is looked up, which has been done long before in
 * views, SQL functions with a parsed body and defaults, by whoever has made
 * them.
 */
static void
spec_require_usage(void)
{
	Oid			schema = get_namespace_oid("taskshed", true);

	if (OidIsValid(schema) && !compat_may_use_schema(schema, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA, "taskshed");
}

/*
 * Start any call that changes tasks: refuse where a change cannot be or must
 * not be, and make what this statement has written so far changeable.
 *
 * Errors: 55000 not preloaded, or another version; 25006 in a read-only
 * transaction, or on a standby; 42501 without USAGE on our schema, and in a
 * security-restricted operation, where code of another user than the one who
 * asked for it runs.
 */
void
check_writable(const char *function)
{
	ts_require_preload();
	spec_require_usage();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", function),
				 errdetail("Tasks are scheduled on the primary server.")));
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot execute %s within security-restricted operation", function)));
	CommandCounterIncrement();
	store_require_version();
}

/* Return whether this database is a template, in which nothing of ours runs. */
bool
check_is_template(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	bool		is_template;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return is_template;
}

/* Say so, once a transaction, when what has been scheduled will not run by itself. */
void
check_warn_if_waiting(void)
{
	static TimestampTz warned_in = 0;

	if (warned_in == GetCurrentTransactionStartTimestamp())
		return;
	warned_in = GetCurrentTransactionStartTimestamp();
	if (!ts_enabled)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("taskshed is disabled, so tasks wait"),
				 errhint("They run when taskshed.enabled is on.")));
	else if (check_is_template())
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("database \"%s\" is a template, so tasks wait",
						get_database_name(MyDatabaseId)),
				 errhint("They run after ALTER DATABASE ... IS_TEMPLATE false.")));
}

/* Return the role of that OID if it does not exist, InvalidOid if it does. */
static Oid
spec_dropped_role(const char *oid)
{
	char	   *end;
	unsigned long value;

	if (strspn(oid, "0123456789") != strlen(oid))
		return InvalidOid;
	errno = 0;
	value = strtoul(oid, &end, 10);
	if (errno != 0 || value > OID_MAX ||
		SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum((Oid) value)))
		return InvalidOid;
	return (Oid) value;
}

/*
 * Return the role that a call acts for: the current user, or one that it may
 * SET ROLE to.  To superusers, and only to them, a role that was dropped is
 * known by the OID that it had, as the views show it, so that they can clear up
 * what it has left.
 *
 * Errors: 42704 no such role, 42501 not a member.
 */
Oid
check_owner(const char *name)
{
	Oid			owner;

	if (name == NULL)
		return GetUserId();
	owner = get_role_oid(name, true);
	if (!OidIsValid(owner) && superuser())
		owner = spec_dropped_role(name);
	if (!OidIsValid(owner))
		owner = get_role_oid(name, false);
	check_may_act(owner);
	return owner;
}

/* Refuse to act for a role that the current user may not act for: 42501. */
void
check_may_act(Oid owner)
{
	if (owner != GetUserId() && !compat_may_set_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for tasks of role \"%s\"",
						GetUserNameFromId(owner, false)),
				 errhint("Only a superuser or a role that may SET ROLE to it can act for it.")));
}

/*
 * Check that either task_ids or group_id is given, and only one: 22023.  If there
 * is a function for all tasks of one's own, for_all is its call; else NULL.
 */
void
check_selector(bool no_task_ids, bool no_group_id, const char *for_all)
{
	if (no_task_ids && no_group_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("either task_ids or group_id must be given"),
				 for_all != NULL ?
				 errhint("Name the tasks, as in task_ids => array['a', 'b'], or their group, as in group_id => 'g'. For all of your own there is %s.", for_all) :
				 errhint("Name the tasks, as in task_ids => array['a', 'b'], or their group, as in group_id => 'g'.")));
	if (!no_task_ids && !no_group_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("task_ids and group_id cannot both be given")));
}

/*
 * Refuse to schedule for a role as which no worker can connect, 55000, or none
 * may, 42501, or that does not exist (any more): 42704.
 */
void
check_login(Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
	bool		can_login;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", owner)));
	can_login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);

	if (!can_login && !compat_connects_nologin())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tasks cannot run as role \"%s\", which is not permitted to log in",
						GetUserNameFromId(owner, false)),
				 errhint("ALTER ROLE %s LOGIN lets its tasks run (it needs no password), or schedule as another role with owner.",
						 quote_identifier(GetUserNameFromId(owner, false)))));
	if (!compat_may_connect(MyDatabaseId, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("tasks cannot run as role \"%s\", which is not permitted to connect to the database",
						GetUserNameFromId(owner, false)),
				 errhint("GRANT CONNECT ON DATABASE %s TO %s lets its tasks run, or schedule as another role with owner.",
						 quote_identifier(get_database_name(MyDatabaseId)),
						 quote_identifier(GetUserNameFromId(owner, false)))));
	if (!ts_allow_superuser_tasks && superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("tasks cannot run as role \"%s\", which is a superuser",
						GetUserNameFromId(owner, false)),
				 errhint("taskshed.allow_superuser_tasks is off. Schedule as another role with owner.")));
}

/* Check the length of a text, in characters: 22023 empty though it must not be, 22001 too long. */
void
check_length(const char *what, text *text, int least, int most)
{
	int			length = pg_mbstrlen_with_len(VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));

	if (length < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (length > most)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too long", what),
				 errdetail("It has %d characters; the limit is %d.", length, most)));
}

/* Refuse times that never come: 22023. */
void
check_run_at(TimestampTz run_at)
{
	if (TIMESTAMP_NOT_FINITE(run_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("run_at must be finite"),
				 errhint("To keep a task from running, pause it.")));
}

/* Refuse a parameter that is for what is to come, since it is not null: 0A000. */
void
check_not_supported(const char *param)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("parameter \"%s\" is not supported yet", param),
			 errhint("Leave it out, or give NULL.")));
}

/* Refuse an option that there is not: 22023. */
static void
check_option_name(const char *key, const char *const *names, int n)
{
	char	  **known = palloc(n * sizeof(char *));
	const char *closest;

	for (int i = 0; i < n; i++)
	{
		if (strcmp(key, names[i]) == 0)
			return;
		known[i] = pstrdup(names[i]);
	}
	closest = resolve_closest_name(key, known, n);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown option \"%s\"", key),
			 closest != NULL ? errhint("Did you mean \"%s\"?", closest) :
			 errhint("There is \"%s\".", names[0])));
}

/*
 * Check an object of options: 22023 for one that there is not, and for a value that is
 * neither true nor false, as all are so far.
 */
void
check_options(const char *param, Jsonb *options, const char *const *names, int n)
{
	JsonbIterator *it = JsonbIteratorInit(&options->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", param)));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			key = pnstrdup(value.val.string.val, value.val.string.len);
			check_option_name(key, names, n);
		}
		else if (token == WJB_VALUE && value.type != jbvBool && value.type != jbvNull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" must be true or false", key)));
	}
}
